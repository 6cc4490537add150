-- Which days of a tenant have changed, so that the lake's next export reads those and no others.
--
-- A day's row holds the number of the last transaction that changed it. Two transactions that change the same day come
-- one after the other (the row is locked until the first ends), so whoever knows a snapshot can tell what it has missed:
-- the days whose transaction the snapshot does not see. Nothing is ever taken out of this table, so any number of lakes
-- can be kept from one warehouse, each with a snapshot of its own.
--
-- The triggers are on the inbox and on the subjects' tables. Facts follow from subjects, row by row, so a subject that
-- changes names the days of its facts as well, before and after: no trigger is needed on hypertables and partitions.
-- Feature logs are only appended to, and their rows tell their transaction.
-- depends: 0002_inbox 0003_builds 0005_subjects 0007_facts 0010_retention
CREATE TABLE lake_changes (
  table_name text COLLATE "C" NOT NULL,
  tenant_id  text COLLATE "C" NOT NULL,
  day        date NOT NULL,
  xid        xid8 NOT NULL,
  PRIMARY KEY (table_name, tenant_id, day)
) WITH (fillfactor = 50);
COMMENT ON TABLE lake_changes IS 'The last transaction that changed a day (UTC) of a tenant, by table of the lake.';

-- Arguments: pairs of a table of the lake and the expression of its rows' time.
CREATE FUNCTION mark_lake_changes() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  position integer := 0;
  changed  text := CASE TG_OP WHEN 'INSERT' THEN 'SELECT * FROM new_rows' WHEN 'DELETE' THEN 'SELECT * FROM old_rows'
                   ELSE 'SELECT * FROM old_rows UNION ALL SELECT * FROM new_rows' END;
  days     text;
BEGIN
  WHILE position < TG_NARGS LOOP
    days := concat_ws(' UNION ', days, format(
      'SELECT DISTINCT %L, tenant_id, (%s AT TIME ZONE ''UTC'')::date FROM changed WHERE %2$s IS NOT NULL',
      TG_ARGV[position], TG_ARGV[position + 1]));
    position := position + 2;
  END LOOP;
  EXECUTE format(
    'WITH changed AS (%s)
     INSERT INTO lake_changes (table_name, tenant_id, day, xid)
     SELECT *, pg_current_xact_id() FROM (%s) AS day (table_name, tenant_id, day) ORDER BY 1, 2, 3
     ON CONFLICT (table_name, tenant_id, day) DO UPDATE SET xid = excluded.xid WHERE lake_changes.xid <> excluded.xid',
    changed, days);
  RETURN NULL;
END
$body$;

DO $body$
DECLARE
  marked  text;
  targets text;
BEGIN
  FOR marked, targets IN VALUES
    ('inbox', $$'events', 'event_time'$$),
    ('builds', $$'builds', 'queued_time', 'completed_builds', 'completed_time'$$),
    ('test_runs', $$'test_runs', 'completed_time', 'test_results', 'completed_time'$$),
    ('quality_evaluations', $$'quality_evaluations', 'evaluated_time', 'quality_scores', 'evaluated_time'$$),
    ('usage_reports', $$'usage_measurements', 'measured_time'$$),
    ('deployments', $$'deployments', 'completed_time'$$),
    ('incidents', $$'incidents', 'coalesce(opened_time, resolved_time)'$$),
    ('change_requests', $$'change_requests', 'merged_time'$$)
  LOOP
    EXECUTE format('CREATE TRIGGER lake_inserted AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows
      FOR EACH STATEMENT EXECUTE FUNCTION mark_lake_changes(%s)', marked, targets);
    EXECUTE format('CREATE TRIGGER lake_updated AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
      FOR EACH STATEMENT EXECUTE FUNCTION mark_lake_changes(%s)', marked, targets);
    EXECUTE format('CREATE TRIGGER lake_deleted AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows
      FOR EACH STATEMENT EXECUTE FUNCTION mark_lake_changes(%s)', marked, targets);
  END LOOP;
END
$body$;

-- A lake's position means something only in the database that it was taken in. Restored into another cluster, or after a
-- failover, the numbers of transactions may begin anew: then another identity is told, and the lake compares everything.
CREATE TABLE lake_source (source_id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO lake_source DEFAULT VALUES;
CREATE FUNCTION lake_source_identity() RETURNS text LANGUAGE sql STABLE AS $body$
  SELECT format('%s/%s/%s/%s', source_id, (SELECT system_identifier FROM pg_control_system()),
    (SELECT timeline_id FROM pg_control_checkpoint()), (SELECT oid FROM pg_database WHERE datname = current_database()))
  FROM lake_source
$body$;
DO $body$ BEGIN PERFORM run_as_owner('mark_lake_changes'::regproc); END $body$;
REVOKE EXECUTE ON FUNCTION lake_source_identity FROM PUBLIC;
