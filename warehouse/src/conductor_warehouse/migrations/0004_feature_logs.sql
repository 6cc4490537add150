-- Where feature rows are kept. A view's log has a column for each of the view's fields, so its table is made from
-- the view's definition: `conductor warehouse migrate` calls create_feature_log for each view that has none yet.
-- depends: 0001_roles
CREATE TABLE feature_views (
  view_key text   PRIMARY KEY,
  entity   text[] NOT NULL,
  fields   text[] NOT NULL
);
COMMENT ON TABLE feature_views IS 'Views that have a log, as they were when it was made. A changed view is a new version with a log of its own.';
GRANT SELECT ON feature_views TO conductor_ingest, conductor_reader;

CREATE TABLE materialization_cursors (
  view_key     text        PRIMARY KEY REFERENCES feature_views,
  epoch        uuid        NOT NULL DEFAULT gen_random_uuid(),
  xid          xid8        NOT NULL DEFAULT '0',
  log_id       bigint      NOT NULL DEFAULT 0,
  updated_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE materialization_cursors IS 'How far each log has been carried to Redis: rows up to (xid, log_id).';
COMMENT ON COLUMN materialization_cursors.epoch IS 'Tells this database from another one that used the same Redis before.';
GRANT SELECT ON materialization_cursors TO conductor_reader;

CREATE FUNCTION create_feature_log(new_view text, new_entity text[], new_fields text[]) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
  log_table text := 'feature_log_' || new_view;
  keys      text := (SELECT string_agg(quote_ident(name), ', ' ORDER BY position)
                     FROM unnest(new_entity) WITH ORDINALITY AS key(name, position));
BEGIN
  INSERT INTO feature_views VALUES (new_view, new_entity, new_fields);
  INSERT INTO materialization_cursors (view_key) VALUES (new_view);
  EXECUTE format(
    'CREATE TABLE %I (
       log_id bigint GENERATED ALWAYS AS IDENTITY,
       xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
       %s,
       event_timestamp timestamptz NOT NULL,
       created timestamptz NOT NULL,
       %s)',
    log_table,
    (SELECT string_agg(format('%I text NOT NULL', name), ', ' ORDER BY position)
     FROM unnest(new_entity) WITH ORDINALITY AS key(name, position)),
    (SELECT string_agg(format('%I double precision', name), ', ' ORDER BY position)
     FROM unnest(new_fields) WITH ORDINALITY AS field(name, position)));
  -- For point-in-time joins, and for the latest row of an entity.
  EXECUTE format('CREATE INDEX ON %I (%s, event_timestamp, created)', log_table, keys);
  -- For the tailing writer, which reads in the order of commits (see tailing_writer.py).
  EXECUTE format('CREATE INDEX ON %I (xid, log_id)', log_table);
  EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', log_table);
  EXECUTE format(
    'CREATE POLICY own_tenant ON %I TO conductor_ingest, conductor_reader
     USING (tenant_id = current_setting(''conductor.tenant_id'', true))', log_table);
  EXECUTE format('GRANT SELECT, INSERT ON %I TO conductor_ingest', log_table);
  EXECUTE format('GRANT SELECT ON %I TO conductor_reader', log_table);
END
$body$;

CREATE FUNCTION drop_feature_log(old_view text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
  EXECUTE format('DROP TABLE %I', 'feature_log_' || old_view);
  DELETE FROM materialization_cursors WHERE view_key = old_view;
  DELETE FROM feature_views WHERE view_key = old_view;
END
$body$;

-- A function may be called by everybody unless that is taken back.
REVOKE EXECUTE ON FUNCTION create_feature_log, drop_feature_log FROM PUBLIC;
