-- What events other than those of builds tell, one row per subject. Of several events that tell of the same subject the
-- one with the greatest (time, source, id) counts, so that the order in which they arrive can't matter.
-- depends: 0001_roles
CREATE TABLE tenants (
  tenant_id     text        PRIMARY KEY,
  event         text[] COLLATE "C" NOT NULL,
  display_name  text        NOT NULL,
  plan          text        NOT NULL,
  created_time  timestamptz NOT NULL
);

CREATE TABLE test_runs (
  tenant_id      text NOT NULL,
  run_id         text COLLATE "C" NOT NULL,
  event          text[] COLLATE "C" NOT NULL,
  repository     text NOT NULL,
  pipeline       text NOT NULL,
  branch         text NOT NULL,
  commit_sha     text NOT NULL,
  build_id       text NOT NULL,
  started_time   timestamptz,
  completed_time timestamptz NOT NULL,
  changed_paths  text[] NOT NULL,
  result_count   integer NOT NULL,
  failed_count   integer NOT NULL,
  PRIMARY KEY (tenant_id, run_id)
);
CREATE INDEX test_runs_by_repository ON test_runs (tenant_id, repository, completed_time, run_id);

CREATE TABLE quality_evaluations (
  tenant_id      text NOT NULL,
  evaluation_id  text COLLATE "C" NOT NULL,
  event          text[] COLLATE "C" NOT NULL,
  repository     text NOT NULL,
  branch         text NOT NULL,
  commit_sha     text NOT NULL,
  build_id       text NOT NULL,
  evaluated_time timestamptz NOT NULL,
  status         text NOT NULL CHECK (status IN ('PASSED', 'WARNED', 'FAILED')),
  conditions     text NOT NULL,
  PRIMARY KEY (tenant_id, evaluation_id)
);
COMMENT ON COLUMN quality_evaluations.conditions IS 'What the gate asked for, as JSON: [{metric, operator, threshold, value, status}].';

CREATE TABLE usage_reports (
  tenant_id     text NOT NULL,
  measured_time timestamptz NOT NULL,
  event         text[] COLLATE "C" NOT NULL,
  PRIMARY KEY (tenant_id, measured_time)
);

CREATE TABLE deployments (
  tenant_id      text NOT NULL,
  deployment_id  text COLLATE "C" NOT NULL,
  event          text[] COLLATE "C" NOT NULL,
  repository     text NOT NULL,
  environment    text NOT NULL,
  commit_sha     text NOT NULL,
  build_id       text NOT NULL,
  started_time   timestamptz,
  completed_time timestamptz NOT NULL,
  outcome        text NOT NULL CHECK (outcome IN ('SUCCESS', 'FAILURE', 'ROLLED_BACK', 'CANCELLED')),
  PRIMARY KEY (tenant_id, deployment_id)
);
CREATE INDEX deployments_by_time ON deployments (tenant_id, repository, environment, completed_time);

-- incident.opened and incident.resolved write columns of their own, as the two events of a build do.
CREATE TABLE incidents (
  tenant_id           text NOT NULL,
  incident_id         text COLLATE "C" NOT NULL,
  opened_event        text[] COLLATE "C",
  repository          text,
  environment         text,
  severity            text CHECK (severity IN ('CRITICAL', 'HIGH', 'MEDIUM', 'LOW')),
  opened_time         timestamptz,
  opened_deployment   text,
  resolved_event      text[] COLLATE "C",
  resolved_time       timestamptz,
  resolved_deployment text,
  PRIMARY KEY (tenant_id, incident_id)
);
CREATE INDEX incidents_by_time ON incidents (tenant_id, opened_time);

CREATE TABLE change_requests (
  tenant_id         text NOT NULL,
  repository        text NOT NULL,
  change_request_id text COLLATE "C" NOT NULL,
  event             text[] COLLATE "C" NOT NULL,
  target_branch     text NOT NULL,
  author            text NOT NULL,
  opened_time       timestamptz,
  merged_time       timestamptz NOT NULL,
  merge_commit_sha  text NOT NULL,
  change            bytea NOT NULL,
  commit_count      integer,
  review_count      integer,
  comment_count     integer,
  PRIMARY KEY (tenant_id, repository, change_request_id)
);
COMMENT ON COLUMN change_requests.change IS 'Serialized conductor.build.v1.ChangeSet.';
CREATE INDEX change_requests_by_time ON change_requests (tenant_id, repository, merged_time);

DO $body$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['tenants', 'test_runs', 'quality_evaluations', 'usage_reports', 'deployments', 'incidents', 'change_requests'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY own_tenant ON %I TO conductor_ingest, conductor_reader
       USING (tenant_id = current_setting(''conductor.tenant_id'', true))', name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO conductor_ingest', name);
    EXECUTE format('GRANT SELECT ON %I TO conductor_reader', name);
  END LOOP;
END
$body$;
