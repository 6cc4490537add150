-- Builds as the events tell of them. build.queued and build.completed write columns of their own, so that the
-- order in which they arrive can't matter; what readers use is generated from both.
-- depends: 0001_roles
CREATE TABLE builds (
  tenant_id text NOT NULL,
  build_id  text COLLATE "C" NOT NULL,

  -- From build.queued. Of two for the same build the one with the greatest (time, source, id) counts.
  queued_event           text[] COLLATE "C",
  context_repository     text,
  context_pipeline       text,
  context_branch         text,
  context_queued_time    timestamptz,
  context                bytea,

  -- From build.completed, likewise.
  completed_event        text[] COLLATE "C",
  completed_repository   text,
  completed_pipeline     text,
  completed_branch       text,
  completed_queued_time  timestamptz,
  completed_time         timestamptz,
  outcome                text CHECK (outcome IN ('SUCCESS', 'FAILURE', 'CANCELLED', 'TIMED_OUT', 'OTHER')),
  duration               double precision,
  waiting_duration       double precision,
  attempt_count          integer,
  job_count              integer,

  repository      text        NOT NULL GENERATED ALWAYS AS (coalesce(completed_repository, context_repository)) STORED,
  pipeline        text        NOT NULL GENERATED ALWAYS AS (coalesce(completed_pipeline, context_pipeline)) STORED,
  branch          text        NOT NULL GENERATED ALWAYS AS (coalesce(completed_branch, context_branch)) STORED,
  queued_time     timestamptz NOT NULL GENERATED ALWAYS AS (coalesce(context_queued_time, completed_queued_time)) STORED,
  passed_duration double precision     GENERATED ALWAYS AS (CASE WHEN outcome = 'SUCCESS' AND duration > 0 THEN duration END) STORED,

  PRIMARY KEY (tenant_id, build_id)
);
COMMENT ON COLUMN builds.context IS 'Serialized conductor.build.v1.BuildContext of build.queued; NULL while that has not arrived.';
COMMENT ON COLUMN builds.duration IS 'Seconds from queueing to completion less waits; NULL where it is not known.';
COMMENT ON COLUMN builds.waiting_duration IS 'Seconds spent waiting for something outside of CI.';
COMMENT ON COLUMN builds.passed_duration IS 'duration of a build that passed and took time; NULL for every other one.';
COMMENT ON COLUMN builds.queued_event IS 'Time (microseconds since the epoch, 20 digits), source and id of the build.queued that the columns are from.';
COMMENT ON COLUMN builds.completed_event IS 'Time (microseconds since the epoch, 20 digits), source and id of the build.completed that the columns are from.';

-- The features read the latest few builds of an entity before a moment: each index serves one such read, newest first.
CREATE INDEX builds_passed_by_pipeline ON builds
  (tenant_id, repository, pipeline, completed_time, build_id) INCLUDE (passed_duration) WHERE passed_duration IS NOT NULL;
CREATE INDEX builds_ended_by_pipeline ON builds
  (tenant_id, repository, pipeline, completed_time, build_id) INCLUDE (outcome) WHERE completed_time IS NOT NULL;
CREATE INDEX builds_passed_by_branch ON builds
  (tenant_id, repository, pipeline, branch, completed_time, build_id) INCLUDE (passed_duration) WHERE passed_duration IS NOT NULL;
CREATE INDEX builds_ended_by_branch ON builds
  (tenant_id, repository, pipeline, branch, completed_time, build_id) INCLUDE (outcome) WHERE completed_time IS NOT NULL;
CREATE INDEX builds_passed_by_repository ON builds
  (tenant_id, repository, completed_time, build_id) INCLUDE (passed_duration) WHERE passed_duration IS NOT NULL;
CREATE INDEX builds_ended_by_repository ON builds
  (tenant_id, repository, completed_time, build_id) INCLUDE (outcome) WHERE completed_time IS NOT NULL;
CREATE INDEX builds_by_queued_time ON builds (tenant_id, queued_time) INCLUDE (completed_time);

ALTER TABLE builds ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON builds TO conductor_ingest, conductor_reader
  USING (tenant_id = current_setting('conductor.tenant_id', true));
GRANT SELECT, INSERT, UPDATE ON builds TO conductor_ingest;
GRANT SELECT ON builds TO conductor_reader;
