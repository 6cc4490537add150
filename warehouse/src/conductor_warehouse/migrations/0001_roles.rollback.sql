-- The roles stay: other databases of the cluster may use them.
DO $body$
BEGIN
  EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM conductor_ingest, conductor_reader', current_schema());
END
$body$;
