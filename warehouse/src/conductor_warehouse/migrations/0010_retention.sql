-- How long each tenant's data are kept, and what is compressed. Without a row a tenant's data are kept forever.
-- depends: 0007_facts 0008_feature_logs_by_time
CREATE TABLE tenant_retention (
  tenant_id text     PRIMARY KEY,
  retention interval NOT NULL CHECK (retention >= interval '1 day')
);
COMMENT ON COLUMN tenant_retention.tenant_id IS 'A tenant, or * for all that have no row of their own.';
GRANT SELECT ON tenant_retention TO conductor_ingest;
