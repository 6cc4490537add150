-- What features, statistics and the lake read: the facts of builds, tests, quality and usage by their time. They follow
-- from the subjects that the events tell of: a subject that changes has its old facts deleted and the new ones inserted.
-- depends: 0003_builds 0005_subjects 0006_time_tables
DO $body$ BEGIN PERFORM create_time_table('completed_builds', $columns$
  tenant_id       text NOT NULL,
  completed_time  timestamptz NOT NULL,
  build_id        text COLLATE "C" NOT NULL,
  repository      text NOT NULL,
  pipeline        text NOT NULL,
  branch          text NOT NULL,
  queued_time     timestamptz NOT NULL,
  outcome         text NOT NULL,
  duration        double precision,
  passed_duration double precision
  $columns$, 'completed_time', 'year', '90 days'); END $body$;
COMMENT ON COLUMN completed_builds.duration IS 'Seconds from queueing to completion less waits; NULL where it is not known.';
COMMENT ON COLUMN completed_builds.passed_duration IS 'duration of a build that passed and took time; NULL for every other one.';
-- The features read the latest few builds of an entity before a moment: each index serves one such read, newest first.
CREATE INDEX completed_builds_by_pipeline ON completed_builds
  (tenant_id, repository, pipeline, completed_time, build_id) INCLUDE (outcome, passed_duration);
CREATE INDEX completed_builds_by_branch ON completed_builds
  (tenant_id, repository, pipeline, branch, completed_time, build_id) INCLUDE (passed_duration);
CREATE INDEX completed_builds_by_repository ON completed_builds
  (tenant_id, repository, completed_time, build_id) INCLUDE (outcome, passed_duration);
DO $body$ BEGIN
  PERFORM ensure_partitions('completed_builds', min(completed_time), max(completed_time))
  FROM builds HAVING count(completed_time) > 0;
END $body$;
INSERT INTO completed_builds
SELECT tenant_id, completed_time, build_id, repository, pipeline, branch, queued_time, outcome, duration, passed_duration
FROM builds WHERE completed_time IS NOT NULL;
-- These served the features before.
DROP INDEX builds_passed_by_pipeline, builds_ended_by_pipeline, builds_passed_by_branch, builds_ended_by_branch,
  builds_passed_by_repository, builds_ended_by_repository;

DO $body$ BEGIN PERFORM create_time_table('test_results', $columns$
  tenant_id       text NOT NULL,
  completed_time  timestamptz NOT NULL,
  run_id          text COLLATE "C" NOT NULL,
  result_number   integer NOT NULL,
  repository      text NOT NULL,
  test_id         text COLLATE "C" NOT NULL,
  outcome         text NOT NULL,
  duration        double precision,
  failure_message text
  $columns$, 'completed_time', 'month', '7 days'); END $body$;
COMMENT ON COLUMN test_results.completed_time IS 'When the run that the result is part of completed.';
COMMENT ON COLUMN test_results.result_number IS 'Place within the run, counted from 0.';
COMMENT ON COLUMN test_results.duration IS 'Seconds; NULL where it is not known.';
COMMENT ON COLUMN test_results.failure_message IS 'NULL where nothing was said.';
CREATE INDEX test_results_by_test ON test_results (tenant_id, repository, test_id, completed_time);
-- Rows come nearly in the order of their time: enough to find one run's.
CREATE INDEX test_results_by_time ON test_results USING brin (completed_time);

DO $body$ BEGIN PERFORM create_time_table('quality_scores', $columns$
  tenant_id      text NOT NULL,
  evaluated_time timestamptz NOT NULL,
  evaluation_id  text COLLATE "C" NOT NULL,
  repository     text NOT NULL,
  branch         text NOT NULL,
  metric         text COLLATE "C" NOT NULL,
  value          double precision NOT NULL
  $columns$, 'evaluated_time', 'year', '90 days'); END $body$;
COMMENT ON COLUMN quality_scores.metric IS 'A score''s name, or coverage_ratio, blocker_issue_count, critical_issue_count, major_issue_count, minor_issue_count, info_issue_count.';
CREATE INDEX quality_scores_by_metric ON quality_scores
  (tenant_id, repository, branch, metric, evaluated_time, evaluation_id) INCLUDE (value);

DO $body$ BEGIN PERFORM create_time_table('usage_measurements', $columns$
  tenant_id     text NOT NULL,
  measured_time timestamptz NOT NULL,
  metric        text COLLATE "C" NOT NULL,
  value         double precision NOT NULL
  $columns$, 'measured_time', 'year', '90 days'); END $body$;
COMMENT ON COLUMN usage_measurements.metric IS 'build_count, stored_bytes, user_count or webhook_count.';
CREATE INDEX usage_measurements_by_time ON usage_measurements (tenant_id, measured_time, metric) INCLUDE (value);
