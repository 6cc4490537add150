-- What incoming events look like per day, what their checks found, and batches that were put aside as a whole.
-- depends: 0001_roles 0002_inbox
CREATE TABLE data_profiles (
  tenant_id        text   NOT NULL,
  event_type       text   NOT NULL,
  received_date    date   NOT NULL,
  batch_count      bigint NOT NULL,
  received_count   bigint NOT NULL,
  stored_count     bigint NOT NULL,
  duplicate_count  bigint NOT NULL,
  first_event_time timestamptz,
  last_event_time  timestamptz,
  profile          jsonb  NOT NULL,
  PRIMARY KEY (tenant_id, event_type, received_date)
);
COMMENT ON TABLE data_profiles IS 'Statistics of the events of a type that were received on a day, in UTC.';
COMMENT ON COLUMN data_profiles.profile IS 'Of the stored events: per field how many tell it, its least and greatest value and its histogram; their lateness.';
-- It is updated with every batch: room for new versions of a row on its own page.
ALTER TABLE data_profiles SET (fillfactor = 50);

CREATE TABLE data_findings (
  tenant_id     text   NOT NULL,
  received_date date   NOT NULL,
  event_type    text   NOT NULL,
  check_name    text   NOT NULL,
  field         text   NOT NULL,
  severity      text   NOT NULL CHECK (severity IN ('warning', 'error')),
  batch_count   bigint NOT NULL,
  first_time    timestamptz NOT NULL,
  last_time     timestamptz NOT NULL,
  message       text   NOT NULL,
  figures       jsonb  NOT NULL,
  PRIMARY KEY (tenant_id, received_date, event_type, check_name, field, severity)
);
COMMENT ON TABLE data_findings IS 'Checks that batches did not pass, by day; message and figures are of the latest batch.';

CREATE TABLE parked_batches (
  parked_batch_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id       text        NOT NULL,
  digest          bytea       NOT NULL,
  status          text        NOT NULL DEFAULT 'parked' CHECK (status IN ('parked', 'released', 'discarded')),
  reason          text        NOT NULL,
  findings        jsonb       NOT NULL,
  event_counts    jsonb       NOT NULL,
  event_count     integer     NOT NULL,
  first_event_time timestamptz,
  last_event_time  timestamptz,
  parked_time     timestamptz NOT NULL DEFAULT clock_timestamp(),
  settled_time    timestamptz,
  UNIQUE (tenant_id, parked_batch_id)
);
COMMENT ON TABLE parked_batches IS 'Batches of one tenant that were put aside as a whole: nothing of them is in any other table.';
COMMENT ON COLUMN parked_batches.digest IS 'SHA-256 of the events: the same batch is parked once.';
COMMENT ON COLUMN parked_batches.event_counts IS 'Events by type; those that could not be read by the type "".';
COMMENT ON COLUMN parked_batches.settled_time IS 'When it was released or discarded.';
CREATE UNIQUE INDEX parked_batches_once ON parked_batches (tenant_id, digest) WHERE status = 'parked';
CREATE INDEX parked_batches_by_time ON parked_batches (tenant_id, parked_time);

CREATE TABLE parked_events (
  tenant_id       text    NOT NULL,
  parked_batch_id bigint  NOT NULL,
  event_number    integer NOT NULL,
  event_type      text    NOT NULL,
  event_source    text    NOT NULL,
  event_id        text    NOT NULL,
  reason          text    NOT NULL,
  form            text    NOT NULL CHECK (form IN ('json', 'protobuf')),
  payload         bytea   NOT NULL,
  digest          bytea   NOT NULL,
  truncated       boolean NOT NULL,
  PRIMARY KEY (tenant_id, parked_batch_id, event_number),
  FOREIGN KEY (tenant_id, parked_batch_id) REFERENCES parked_batches (tenant_id, parked_batch_id) ON DELETE CASCADE
);
COMMENT ON COLUMN parked_events.reason IS 'Why the event can''t be taken in; empty where it can.';
COMMENT ON COLUMN parked_events.payload IS 'A serialized conductor.events.v1.CloudEvent; of one that can''t be taken in, what came.';
COMMENT ON COLUMN parked_events.digest IS 'As in dead_letters; empty for an event that can be taken in.';

DO $body$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['data_profiles', 'data_findings', 'parked_batches', 'parked_events'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY own_tenant ON %I TO conductor_ingest, conductor_reader
       USING (tenant_id = current_setting(''conductor.tenant_id'', true))', name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO conductor_ingest', name);
    EXECUTE format('GRANT SELECT ON %I TO conductor_reader', name);
  END LOOP;
END
$body$;
GRANT DELETE ON parked_events TO conductor_ingest;
