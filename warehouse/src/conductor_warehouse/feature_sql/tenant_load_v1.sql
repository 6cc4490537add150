-- reach: 6 hours
SELECT
  count(*) FILTER (WHERE queued_time > moment.at - interval '1 hour')::double precision AS queued_count_1h,
  count(*) FILTER (WHERE completed_time IS NULL OR completed_time > moment.at)::double precision AS running_count
FROM builds
WHERE tenant_id = moment.tenant_id
  AND queued_time > moment.at - interval '6 hours' AND queued_time <= moment.at
