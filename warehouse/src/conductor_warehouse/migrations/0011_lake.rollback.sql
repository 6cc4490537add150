DO $body$
DECLARE
  marked text;
BEGIN
  FOREACH marked IN ARRAY ARRAY['inbox', 'builds', 'test_runs', 'quality_evaluations', 'usage_reports', 'deployments',
    'incidents', 'change_requests'] LOOP
    EXECUTE format('DROP TRIGGER lake_inserted ON %I', marked);
    EXECUTE format('DROP TRIGGER lake_updated ON %I', marked);
    EXECUTE format('DROP TRIGGER lake_deleted ON %I', marked);
  END LOOP;
END
$body$;
DROP FUNCTION lake_source_identity;
DROP FUNCTION mark_lake_changes;
DROP TABLE lake_changes, lake_source;
