DO $body$ BEGIN
  PERFORM drop_time_table(name)
  FROM unnest(ARRAY['usage_measurements', 'quality_scores', 'test_results', 'completed_builds']) AS name;
END $body$;
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
