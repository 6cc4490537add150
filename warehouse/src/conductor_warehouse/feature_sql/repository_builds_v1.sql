SELECT passed.*, ended.*
FROM (
  SELECT
    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) AS median_duration_30,
    percentile_cont(0.05) WITHIN GROUP (ORDER BY duration) AS lower_duration_30,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY duration) AS upper_duration_30,
    count(*)::double precision AS passed_count
  FROM (
    SELECT passed_duration AS duration
    FROM builds
    WHERE (tenant_id, repository) = (moment.tenant_id, moment.repository)
      AND passed_duration IS NOT NULL AND completed_time <= moment.at
    ORDER BY completed_time DESC, build_id DESC
    LIMIT 30
  ) AS latest
) AS passed
CROSS JOIN (
  SELECT avg((outcome IN ('FAILURE', 'TIMED_OUT'))::integer::double precision) AS failure_rate_20
  FROM (
    SELECT outcome
    FROM builds
    WHERE (tenant_id, repository) = (moment.tenant_id, moment.repository)
      AND completed_time <= moment.at
    ORDER BY completed_time DESC, build_id DESC
    LIMIT 20
  ) AS latest
) AS ended
