-- Feature logs are kept by time too. Those that are there move with their rows, numbers and transactions.
-- depends: 0004_feature_logs 0006_time_tables
CREATE OR REPLACE FUNCTION create_feature_log(new_view text, new_entity text[], new_fields text[]) RETURNS void
LANGUAGE plpgsql AS $body$
DECLARE
  log_table text := 'feature_log_' || new_view;
  numbers   text := log_table || '_log_id_seq';
  keys      text := (SELECT string_agg(quote_ident(name), ', ' ORDER BY position)
                     FROM unnest(new_entity) WITH ORDINALITY AS key(name, position));
BEGIN
  INSERT INTO feature_views VALUES (new_view, new_entity, new_fields) ON CONFLICT DO NOTHING;
  INSERT INTO materialization_cursors (view_key) VALUES (new_view) ON CONFLICT DO NOTHING;
  -- Not an identity column, which a partitioned table can't have before PostgreSQL 17.
  EXECUTE format('CREATE SEQUENCE %I', numbers);
  PERFORM create_time_table(
    log_table,
    format(
      'log_id bigint NOT NULL DEFAULT nextval(%L::regclass),
       xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
       %s,
       event_timestamp timestamptz NOT NULL,
       created timestamptz NOT NULL,
       %s',
      quote_ident(numbers),
      (SELECT string_agg(format('%I text NOT NULL', name), ', ' ORDER BY position)
       FROM unnest(new_entity) WITH ORDINALITY AS key(name, position)),
      (SELECT string_agg(format('%I double precision', name), ', ' ORDER BY position)
       FROM unnest(new_fields) WITH ORDINALITY AS field(name, position))),
    'event_timestamp', 'quarter', '30 days');
  EXECUTE format('ALTER SEQUENCE %I OWNED BY %I.log_id', numbers, log_table);
  EXECUTE format('GRANT USAGE ON SEQUENCE %I TO conductor_ingest', numbers);
  -- For point-in-time joins, and for the latest row of an entity.
  EXECUTE format('CREATE INDEX ON %I (%s, event_timestamp, created)', log_table, keys);
  -- For the tailing writer, which reads in the order of commits (see tailing_writer.py).
  EXECUTE format('CREATE INDEX ON %I (xid, log_id)', log_table);
END
$body$;

CREATE OR REPLACE FUNCTION drop_feature_log(old_view text) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM drop_time_table('feature_log_' || old_view);
  DELETE FROM materialization_cursors WHERE view_key = old_view;
  DELETE FROM feature_views WHERE view_key = old_view;
END
$body$;
REVOKE EXECUTE ON FUNCTION create_feature_log, drop_feature_log FROM PUBLIC;

DO $body$
DECLARE
  view   feature_views;
  logged text;
  names  text;
  first  timestamptz;
  last   timestamptz;
BEGIN
  FOR view IN SELECT * FROM feature_views LOOP
    logged := 'feature_log_' || view.view_key;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', logged, 'old_' || logged);
    EXECUTE format('ALTER SEQUENCE %I RENAME TO %I', logged || '_log_id_seq', 'old_' || logged || '_log_id_seq');
    PERFORM create_feature_log(view.view_key, view.entity, view.fields);
    EXECUTE format('SELECT min(event_timestamp), max(event_timestamp) FROM %I', 'old_' || logged) INTO first, last;
    PERFORM ensure_partitions(logged, first, last) WHERE first IS NOT NULL;
    names := (SELECT string_agg(quote_ident(name), ', ')
              FROM unnest(ARRAY['log_id', 'xid', 'event_timestamp', 'created'] || view.entity || view.fields) AS name);
    EXECUTE format('INSERT INTO %I (%s) SELECT %s FROM %I ORDER BY log_id', logged, names, names, 'old_' || logged);
    EXECUTE format('SELECT setval(%L, nextval(%L))', quote_ident(logged || '_log_id_seq'),
      quote_ident('old_' || logged || '_log_id_seq'));
    EXECUTE format('DROP TABLE %I', 'old_' || logged);
  END LOOP;
END
$body$;
