DO $body$
DECLARE
  kept statistics;
BEGIN
  FOR kept IN SELECT * FROM statistics LOOP
    EXECUTE format('DROP VIEW conductor_tenant.%I', kept.name);
    IF has_timescale() THEN
      EXECUTE format('DROP MATERIALIZED VIEW %I', kept.name);
    ELSE
      EXECUTE format('DROP VIEW %I', kept.name);
      EXECUTE format('DROP TABLE %I', kept.name || '_stored');
      EXECUTE format('DROP FUNCTION IF EXISTS %I CASCADE', 'mark_' || kept.fact_table);
    END IF;
  END LOOP;
END
$body$;
DROP FUNCTION refresh_statistics;
DROP FUNCTION create_statistics;
DROP FUNCTION statistics_query;
DROP TABLE statistics_dirty, statistics;
