-- Roles belong to the whole cluster, so another database of it may have created them already, or be doing so now.
-- They can't log in: a service's login is granted the role and takes it for each transaction (SET LOCAL ROLE).
-- The owner of the tables migrates; row-level security binds these two roles and never the owner.
DO $body$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['conductor_ingest', 'conductor_reader'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
    -- The migrating login must be able to take the role. A superuser always is.
    IF NOT pg_has_role(current_user, role, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO %I', role, current_user);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
  END LOOP;
END
$body$;
