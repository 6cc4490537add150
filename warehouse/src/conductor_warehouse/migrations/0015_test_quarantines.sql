-- Which tests' failures are not to be counted, and since when. Of several events that tell of one test and moment the one
-- with the greatest (time, source, id) counts.
-- depends: 0005_subjects 0007_facts 0010_retention 0011_lake
CREATE TABLE test_quarantines (
  tenant_id    text NOT NULL,
  repository   text NOT NULL,
  test_id      text COLLATE "C" NOT NULL,
  changed_time timestamptz NOT NULL,
  event        text[] COLLATE "C" NOT NULL,
  quarantined  boolean NOT NULL,
  reason       text NOT NULL,
  PRIMARY KEY (tenant_id, repository, test_id, changed_time)
);
COMMENT ON COLUMN test_quarantines.quarantined IS 'Quarantined as of that moment; false: released.';

-- A test's failed runs are gone through without those that it passed.
CREATE INDEX test_results_failed ON test_results (tenant_id, repository, test_id, completed_time)
  WHERE outcome IN ('FAILED', 'ERROR');

-- Rows of a test's view that lie after an event may have become others by it. Whether there can be any is told by one
-- row for each repository, so that a run of thousands of tests that comes in order looks for none.
CREATE TABLE test_repositories (
  tenant_id   text NOT NULL,
  repository  text NOT NULL,
  latest_time timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, repository)
);
COMMENT ON COLUMN test_repositories.latest_time IS 'The latest moment that an event has told of its tests, whether it counts or not.';
-- What events told that do not count any more is not known: no event is from further ahead than this.
INSERT INTO test_repositories SELECT DISTINCT tenant_id, repository, now() + interval '1 day' FROM test_runs;

DO $body$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['test_quarantines', 'test_repositories'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY own_tenant ON %I TO conductor_ingest, conductor_reader
       USING (tenant_id = current_setting(''conductor.tenant_id'', true))', name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO conductor_ingest', name);
    EXECUTE format('GRANT SELECT ON %I TO conductor_reader', name);
  END LOOP;
END
$body$;

CREATE TRIGGER lake_inserted AFTER INSERT ON test_quarantines REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION mark_lake_changes('test_quarantines', 'changed_time');
CREATE TRIGGER lake_updated AFTER UPDATE ON test_quarantines REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION mark_lake_changes('test_quarantines', 'changed_time');
CREATE TRIGGER lake_deleted AFTER DELETE ON test_quarantines REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION mark_lake_changes('test_quarantines', 'changed_time');
