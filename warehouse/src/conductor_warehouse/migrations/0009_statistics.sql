-- Statistics by hour and by day (UTC) over the facts: always what a GROUP BY of the facts would give.
--
-- With TimescaleDB each is a continuous aggregate. Without it each is a view of the same name and columns: of stored rows
-- for days that are settled, and computed from the facts for days that have changed since (`statistics_dirty`), until
-- refresh_statistics() settles them.
-- depends: 0007_facts
CREATE TABLE statistics (
  name        text PRIMARY KEY,
  fact_table  text NOT NULL REFERENCES time_tables,
  time_column text NOT NULL,
  unit        text NOT NULL CHECK (unit IN ('hour', 'day')),
  groups      text NOT NULL,
  aggregates  text NOT NULL
);
CREATE TABLE statistics_dirty (
  fact_table  text        NOT NULL,
  tenant_id   text        NOT NULL,
  day         timestamptz NOT NULL,
  marked_time timestamptz NOT NULL,
  PRIMARY KEY (fact_table, tenant_id, day)
);
COMMENT ON TABLE statistics_dirty IS 'Days of a tenant whose facts have changed since their statistics were stored.';

-- The SELECT of a statistic over some of the facts.
CREATE FUNCTION statistics_query(kept statistics, condition text) RETURNS text LANGUAGE sql AS $body$
  SELECT format('SELECT %s AS bucket, %s, %s FROM %I AS fact WHERE %s GROUP BY 1, %s',
    CASE WHEN has_timescale() THEN format('time_bucket(''1 %s'', fact.%I)', kept.unit, kept.time_column)
         ELSE format('date_trunc(''%s'', fact.%I, ''UTC'')', kept.unit, kept.time_column) END,
    kept.groups, kept.aggregates, kept.fact_table, condition, kept.groups)
$body$;

CREATE FUNCTION create_statistics(prefix text, fact_table text, time_column text, groups text, aggregates text) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
  unit text;
  kept statistics;
  stored text;
  own  text := format('fact.tenant_id = dirty.tenant_id AND fact.%1$I >= dirty.day AND fact.%1$I < dirty.day + interval ''24 hours''',
                      time_column);
BEGIN
  FOREACH unit IN ARRAY ARRAY['hour', 'day'] LOOP
    kept := (format('%s_%s_stats', prefix, CASE unit WHEN 'hour' THEN 'hourly' ELSE 'daily' END),
      fact_table, time_column, unit, groups, aggregates);
    INSERT INTO statistics VALUES (kept.*);
    IF has_timescale() THEN
      EXECUTE format('CREATE MATERIALIZED VIEW %I WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS %s WITH NO DATA',
        kept.name, statistics_query(kept, 'true'));
      -- From the beginning of time: what has changed since the last refresh is known, and only that is computed.
      PERFORM add_continuous_aggregate_policy(kept.name::regclass, start_offset => NULL, end_offset => interval '1 hour',
        schedule_interval => interval '10 minutes');
    ELSE
      stored := kept.name || '_stored';
      EXECUTE format('CREATE TABLE %I AS %s WITH NO DATA', stored, statistics_query(kept, 'false'));
      EXECUTE format('CREATE INDEX ON %I (tenant_id, bucket)', stored);
      EXECUTE format(
        'CREATE VIEW %I AS
         SELECT * FROM %I AS stored WHERE NOT EXISTS (
           SELECT FROM statistics_dirty AS dirty WHERE dirty.fact_table = %L
             AND dirty.tenant_id = stored.tenant_id AND dirty.day = date_trunc(''day'', stored.bucket, ''UTC''))
         UNION ALL
         SELECT live.* FROM statistics_dirty AS dirty CROSS JOIN LATERAL (%s) AS live WHERE dirty.fact_table = %L',
        kept.name, stored, fact_table, statistics_query(kept, own), fact_table);
    END IF;
    EXECUTE format(
      'CREATE VIEW conductor_tenant.%1$I WITH (security_barrier) AS
       SELECT * FROM %1$I WHERE tenant_id = current_setting(''conductor.tenant_id'', true)', kept.name);
    EXECUTE format('GRANT SELECT ON conductor_tenant.%I TO conductor_ingest, conductor_reader', kept.name);
  END LOOP;
  IF NOT has_timescale() THEN
    -- A row that is marked is locked until this transaction ends, so that it can't be settled without its facts.
    EXECUTE format(
      'CREATE FUNCTION %I() RETURNS trigger LANGUAGE plpgsql AS $trigger$
       BEGIN
         INSERT INTO statistics_dirty
         SELECT DISTINCT %L, tenant_id, date_trunc(''day'', %I, ''UTC''), now() FROM changed ORDER BY 2, 3
         ON CONFLICT (fact_table, tenant_id, day) DO UPDATE SET marked_time = excluded.marked_time;
         RETURN NULL;
       END $trigger$', 'mark_' || fact_table, fact_table, time_column);
    PERFORM run_as_owner(format('%I', 'mark_' || fact_table)::regproc);
    EXECUTE format('CREATE TRIGGER mark_inserted AFTER INSERT ON %I REFERENCING NEW TABLE AS changed
      FOR EACH STATEMENT EXECUTE FUNCTION %I()', fact_table, 'mark_' || fact_table);
    EXECUTE format('CREATE TRIGGER mark_deleted AFTER DELETE ON %I REFERENCING OLD TABLE AS changed
      FOR EACH STATEMENT EXECUTE FUNCTION %I()', fact_table, 'mark_' || fact_table);
    EXECUTE format('INSERT INTO statistics_dirty SELECT DISTINCT %L, tenant_id, date_trunc(''day'', %I, ''UTC''), now() FROM %I',
      fact_table, time_column, fact_table);
  END IF;
END
$body$;

-- Settles one day of one tenant, if nobody is changing its facts; returns whether there was one to settle.
-- One day in a transaction: it holds a single lock, so it can't be part of a deadlock.
CREATE FUNCTION refresh_statistics() RETURNS boolean LANGUAGE plpgsql AS $body$
DECLARE
  dirty  statistics_dirty;
  kept   statistics;
  own    text;
BEGIN
  SELECT * INTO dirty FROM statistics_dirty ORDER BY marked_time LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  FOR kept IN SELECT * FROM statistics WHERE fact_table = dirty.fact_table LOOP
    own := format('fact.tenant_id = %1$L AND fact.%2$I >= %3$L AND fact.%2$I < %3$L::timestamptz + interval ''24 hours''',
      dirty.tenant_id, kept.time_column, dirty.day);
    EXECUTE format('DELETE FROM %I WHERE tenant_id = %L AND bucket >= %L AND bucket < %L::timestamptz + interval ''24 hours''',
      kept.name || '_stored', dirty.tenant_id, dirty.day, dirty.day);
    EXECUTE format('INSERT INTO %I %s', kept.name || '_stored', statistics_query(kept, own));
  END LOOP;
  DELETE FROM statistics_dirty AS d
  WHERE (d.fact_table, d.tenant_id, d.day) = (dirty.fact_table, dirty.tenant_id, dirty.day);
  RETURN true;
END
$body$;
REVOKE EXECUTE ON FUNCTION create_statistics, refresh_statistics FROM PUBLIC;

-- Sums are of numerics: those of floating-point numbers depend on the order of rows.
DO $body$ BEGIN
  PERFORM create_statistics('builds', 'completed_builds', 'completed_time', 'tenant_id, repository, pipeline', $columns$
    count(*) AS build_count,
    count(*) FILTER (WHERE outcome = 'SUCCESS') AS success_count,
    count(*) FILTER (WHERE outcome IN ('FAILURE', 'TIMED_OUT')) AS failure_count,
    count(*) FILTER (WHERE outcome = 'CANCELLED') AS cancelled_count,
    count(passed_duration) AS passed_count,
    avg(passed_duration::numeric)::double precision AS mean_passed_duration,
    min(passed_duration) AS min_passed_duration,
    max(passed_duration) AS max_passed_duration,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY passed_duration) AS median_passed_duration,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY passed_duration) AS p95_passed_duration$columns$);
  PERFORM create_statistics('tests', 'test_results', 'completed_time', 'tenant_id, repository', $columns$
    count(*) AS result_count,
    count(DISTINCT run_id) AS run_count,
    count(DISTINCT test_id) AS test_count,
    count(*) FILTER (WHERE outcome = 'PASSED') AS passed_count,
    count(*) FILTER (WHERE outcome IN ('FAILED', 'ERROR')) AS failed_count,
    count(*) FILTER (WHERE outcome = 'SKIPPED') AS skipped_count,
    sum(duration::numeric)::double precision AS total_duration$columns$);
  PERFORM create_statistics('quality', 'quality_scores', 'evaluated_time', 'tenant_id, repository, branch, metric', $columns$
    count(*) AS value_count,
    avg(value::numeric)::double precision AS mean_value,
    min(value) AS min_value,
    max(value) AS max_value$columns$);
  PERFORM create_statistics('usage', 'usage_measurements', 'measured_time', 'tenant_id, metric', $columns$
    count(*) AS value_count,
    avg(value::numeric)::double precision AS mean_value,
    min(value) AS min_value,
    max(value) AS max_value$columns$);
END $body$;
