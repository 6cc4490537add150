-- Every event that was taken in, as it came, and those that could not be.
-- depends: 0001_roles
CREATE TABLE inbox (
  tenant_id     text        NOT NULL,
  source        text        NOT NULL,
  event_id      text        NOT NULL,
  event_type    text        NOT NULL,
  event_time    timestamptz NOT NULL,
  subject       text        NOT NULL,
  received_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  data          bytea       NOT NULL,
  PRIMARY KEY (tenant_id, source, event_id)
);
COMMENT ON TABLE inbox IS 'Events by identity: a second one with the same (tenant_id, source, event_id) changes nothing.';
COMMENT ON COLUMN inbox.data IS 'The serialized message of conductor.events.v1 that event_type names.';
CREATE INDEX inbox_by_time ON inbox (tenant_id, event_time);

CREATE TABLE dead_letters (
  dead_letter_id   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id        text        NOT NULL,
  digest           bytea       NOT NULL,
  event_id         text        NOT NULL,
  event_source     text        NOT NULL,
  reason           text        NOT NULL,
  form             text        NOT NULL CHECK (form IN ('json', 'protobuf')),
  payload          bytea       NOT NULL,
  truncated        boolean     NOT NULL,
  dead_letter_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (tenant_id, digest)
);
COMMENT ON TABLE dead_letters IS 'Events that could not be taken in, with the reason.';
COMMENT ON COLUMN dead_letters.tenant_id IS 'Tenant, as far as it could be read; empty otherwise.';
COMMENT ON COLUMN dead_letters.digest IS 'SHA-256 of the whole payload: the same letter is kept once.';
COMMENT ON COLUMN dead_letters.payload IS 'What came; only its beginning where truncated.';

ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON inbox TO conductor_ingest, conductor_reader
  USING (tenant_id = current_setting('conductor.tenant_id', true));
GRANT SELECT, INSERT ON inbox TO conductor_ingest;
GRANT SELECT ON inbox TO conductor_reader;

ALTER TABLE dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON dead_letters TO conductor_ingest, conductor_reader
  USING (tenant_id = current_setting('conductor.tenant_id', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON dead_letters TO conductor_ingest;
GRANT SELECT ON dead_letters TO conductor_reader;
