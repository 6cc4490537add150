SELECT
  recent.last_duration,
  recent.mean_duration_7,
  recent.median_duration_5,
  recent.median_duration_7,
  recent.median_duration_15,
  recent.median_duration_30,
  (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) FROM unnest(passed.durations) AS duration
  ) AS median_duration_500,
  recent.weighted_mean_duration_50,
  recent.lower_duration_30,
  recent.upper_duration_30,
  CASE WHEN error.count >= 10 THEN error.median END AS typical_error_50,
  -- The direct argument of percentile_cont may be an expression of an outer query's columns only.
  CASE WHEN error.count >= 10 THEN (
    SELECT percentile_cont(least(1, 0.9 * (1 + 1.0 / error.count))) WITHIN GROUP (ORDER BY value)
    FROM unnest(error.values) AS value
  ) END AS relative_error_50,
  passed.count::double precision AS passed_count,
  ended.failure_rate_20,
  ended.last_failed,
  ended.last_completed_time
FROM (
  -- Newest first: an aggregate takes the rows of an ordered subquery in their order.
  SELECT count(*) AS count, array_agg(passed_duration) AS durations
  FROM (
    SELECT passed_duration
    FROM builds
    WHERE (tenant_id, repository, pipeline) = (moment.tenant_id, moment.repository, moment.pipeline)
      AND passed_duration IS NOT NULL AND completed_time <= moment.at
    ORDER BY completed_time DESC, build_id DESC
    LIMIT 500
  ) AS latest
) AS passed
CROSS JOIN LATERAL (
  SELECT
    max(duration) FILTER (WHERE recency = 1) AS last_duration,
    avg(duration ORDER BY recency) FILTER (WHERE recency <= 7) AS mean_duration_7,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 5) AS median_duration_5,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 7) AS median_duration_7,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 15) AS median_duration_15,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 30) AS median_duration_30,
    percentile_cont(0.1) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 30) AS lower_duration_30,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY duration) FILTER (WHERE recency <= 30) AS upper_duration_30,
    exp(
      sum(power(0.8::double precision, recency - 1) * ln(duration) ORDER BY recency)
      / sum(power(0.8::double precision, recency - 1) ORDER BY recency)
    ) AS weighted_mean_duration_50
  FROM unnest(passed.durations[1:50]) WITH ORDINALITY AS latest(duration, recency)
) AS recent
CROSS JOIN LATERAL (
  SELECT
    count(*) AS count,
    array_agg(abs(ln(passed.durations[recency] / median.value))) AS values,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(ln(passed.durations[recency] / median.value))) AS median
  FROM generate_series(1, least(50, passed.count::integer - 3)) AS recency
  -- OFFSET 0 keeps the slice a value of its own. By it the planner memoizes the medians, most of which one moment of
  -- a pipeline shares with the next: a third of the time.
  CROSS JOIN LATERAL (SELECT passed.durations[recency + 1 : recency + 7] AS durations OFFSET 0) AS before
  CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY duration) AS value FROM unnest(before.durations) AS duration
  ) AS median
) AS error
CROSS JOIN (
  SELECT
    avg((outcome IN ('FAILURE', 'TIMED_OUT'))::integer::double precision) AS failure_rate_20,
    max((outcome IN ('FAILURE', 'TIMED_OUT'))::integer::double precision) FILTER (WHERE recency = 1) AS last_failed,
    extract(epoch FROM max(completed_time))::double precision AS last_completed_time
  FROM (
    SELECT outcome, completed_time, row_number() OVER (ORDER BY completed_time DESC, build_id DESC) AS recency
    FROM builds
    WHERE (tenant_id, repository, pipeline) = (moment.tenant_id, moment.repository, moment.pipeline)
      AND completed_time <= moment.at
    ORDER BY completed_time DESC, build_id DESC
    LIMIT 20
  ) AS latest
) AS ended
