-- How long each tenant's data are kept. Without a row they are kept forever.
-- depends: 0007_facts 0008_feature_logs_by_time 0009_statistics
CREATE TABLE tenant_retention (
  tenant_id text     PRIMARY KEY,
  retention interval NOT NULL CHECK (retention >= interval '1 day')
);
COMMENT ON COLUMN tenant_retention.tenant_id IS 'A tenant, or * for all that have no row of their own.';
GRANT SELECT ON tenant_retention TO conductor_ingest;
ALTER TABLE tenant_retention ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenant_retention TO conductor_ingest
  USING (tenant_id IN ('*', current_setting('conductor.tenant_id', true)));

-- Called before a native partition is dropped, whose rows fire no trigger.
CREATE FUNCTION forget_statistics(of_table text, partition text) RETURNS void LANGUAGE plpgsql AS $body$
DECLARE
  kept time_tables;
BEGIN
  SELECT * INTO STRICT kept FROM time_tables WHERE table_name = of_table;
  IF EXISTS (SELECT FROM statistics WHERE fact_table = of_table) THEN
    EXECUTE format(
      'INSERT INTO statistics_dirty SELECT DISTINCT %L, tenant_id, date_trunc(''day'', %I, ''UTC''), now() FROM %I ORDER BY 2, 3
       ON CONFLICT (fact_table, tenant_id, day) DO UPDATE SET marked_time = excluded.marked_time',
      of_table, kept.time_column, partition);
  END IF;
END
$body$;
REVOKE EXECUTE ON FUNCTION forget_statistics FROM PUBLIC;
