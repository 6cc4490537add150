DO $body$
BEGIN
  PERFORM drop_feature_log(view_key) FROM feature_views;
END
$body$;
DROP FUNCTION drop_feature_log;
DROP FUNCTION create_feature_log;
DROP TABLE materialization_cursors;
DROP TABLE feature_views;
