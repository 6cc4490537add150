-- The functions stay as they are: what made the logs is taken down right after this, by 0004's rollback.
DO $body$
BEGIN
  PERFORM drop_feature_log(view_key) FROM feature_views;
END
$body$;
