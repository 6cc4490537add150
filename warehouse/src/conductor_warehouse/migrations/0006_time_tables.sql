-- Tables that are kept by time: hypertables where the database has TimescaleDB (`conductor warehouse migrate` creates the
-- extension where it is preloaded), else tables with native partitions, made when rows of their time first come.
--
-- TimescaleDB compresses and aggregates only tables without row-level security. So on both, tenants' roles can't reach
-- such a table itself, but through a view of its name in the schema conductor_tenant, which shows and takes the rows of
-- the tenant that is set. A transaction of a tenant has that schema first in its search path.
-- depends: 0001_roles
CREATE SCHEMA IF NOT EXISTS conductor_tenant;
GRANT USAGE ON SCHEMA conductor_tenant TO conductor_ingest, conductor_reader;

CREATE TABLE time_tables (
  table_name  text PRIMARY KEY,
  time_column text NOT NULL,
  partition   text NOT NULL CHECK (partition IN ('month', 'quarter', 'year'))
);
COMMENT ON COLUMN time_tables.partition IS 'What one native partition holds.';
GRANT SELECT ON time_tables TO conductor_ingest, conductor_reader;

CREATE FUNCTION has_timescale() RETURNS boolean LANGUAGE sql STABLE AS
  $body$ SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') $body$;

-- chunk: what one chunk of a hypertable holds. Its indexes are all in memory while it is written to.
CREATE FUNCTION create_time_table(name text, columns text, time_column text, partition text, chunk interval) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
  EXECUTE format('CREATE TABLE %I (%s) %s', name, columns,
    CASE WHEN has_timescale() THEN '' ELSE format('PARTITION BY RANGE (%I)', time_column) END);
  INSERT INTO time_tables VALUES (name, time_column, partition);
  IF has_timescale() THEN
    PERFORM create_hypertable(format('%I', name)::regclass, time_column::name,
      chunk_time_interval => chunk, create_default_indexes => false);
    -- Compressed chunks keep a tenant's rows together: they are read, and deleted, without touching the others'.
    EXECUTE format('ALTER TABLE %I SET (timescaledb.compress, timescaledb.compress_segmentby = ''tenant_id'',
      timescaledb.compress_orderby = ''%I DESC'')', name, time_column);
    PERFORM add_compression_policy(format('%I', name)::regclass, greatest(chunk, interval '30 days'));
  END IF;
  EXECUTE format(
    'CREATE VIEW conductor_tenant.%1$I WITH (security_barrier) AS
     SELECT * FROM %1$I WHERE tenant_id = current_setting(''conductor.tenant_id'', true) WITH LOCAL CHECK OPTION', name);
  EXECUTE format('GRANT SELECT, INSERT, DELETE ON conductor_tenant.%I TO conductor_ingest', name);
  EXECUTE format('GRANT SELECT ON conductor_tenant.%I TO conductor_reader', name);
END
$body$;

CREATE FUNCTION drop_time_table(name text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
  EXECUTE format('DROP VIEW conductor_tenant.%I', name);
  EXECUTE format('DROP TABLE %I CASCADE', name);
  DELETE FROM time_tables WHERE table_name = name;
END
$body$;

-- Lets a function run as its owner, whoever calls it. It finds objects of this schema only: a caller's temporary tables,
-- which come before all others unless a path says where, could bring triggers and casts of the caller's.
CREATE FUNCTION run_as_owner(function regprocedure) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
  EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', function, current_schema());
  -- A function may be called, and made a trigger, by everybody unless that is taken back.
  EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function);
END
$body$;

-- Called by who writes, before writing, with the first and the last time of the rows. Runs as the owner of the tables.
CREATE FUNCTION ensure_partitions(name text, first timestamptz, last timestamptz) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
  kept  time_tables;
  step  interval;
  begins timestamptz;
  part  text;
BEGIN
  IF has_timescale() THEN
    RETURN;
  END IF;
  SELECT * INTO STRICT kept FROM time_tables WHERE table_name = name;
  step := CASE kept.partition WHEN 'month' THEN '1 month' WHEN 'quarter' THEN '3 months' ELSE '1 year' END;
  begins := date_trunc(kept.partition, first, 'UTC');
  WHILE begins <= last LOOP
    part := name || '_' || to_char(begins AT TIME ZONE 'UTC', 'YYYYMM');
    IF to_regclass(format('%I', part)) IS NULL THEN
      -- Who comes second waits for the first, and finds the partition: by a query, which sees what was committed
      -- meanwhile, and not by to_regclass, which remembers what it did not find.
      PERFORM pg_advisory_xact_lock(hashtextextended('partitions of ' || name, 0));
      IF NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                     WHERE inhparent = format('%I', name)::regclass AND relname = part) THEN
        -- Attaching lets others go on reading and writing, which PARTITION OF would not.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING CONSTRAINTS)', part, name);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, part, begins,
          (begins AT TIME ZONE 'UTC' + step) AT TIME ZONE 'UTC');
      END IF;
    END IF;
    begins := (begins AT TIME ZONE 'UTC' + step) AT TIME ZONE 'UTC';
  END LOOP;
END
$body$;

DO $body$ BEGIN PERFORM run_as_owner('ensure_partitions'::regproc); END $body$;
REVOKE EXECUTE ON FUNCTION run_as_owner, create_time_table, drop_time_table FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partitions TO conductor_ingest;
