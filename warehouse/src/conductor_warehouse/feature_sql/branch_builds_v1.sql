SELECT
  max(duration) FILTER (WHERE recency = 1) AS last_duration,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 7) AS median_duration_7,
  count(*)::double precision AS passed_count,
  extract(epoch FROM max(completed_time))::double precision AS last_passed_time
FROM (
  SELECT
    passed_duration AS duration,
    completed_time,
    row_number() OVER (ORDER BY completed_time DESC, build_id DESC) AS recency
  FROM builds
  WHERE (tenant_id, repository, pipeline, branch)
      = (moment.tenant_id, moment.repository, moment.pipeline, moment.branch)
    AND passed_duration IS NOT NULL AND completed_time <= moment.at
  ORDER BY completed_time DESC, build_id DESC
  LIMIT 50
) AS latest
