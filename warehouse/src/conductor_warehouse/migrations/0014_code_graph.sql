-- What of a repository's code leads to which tests: a snapshot for each commit that was indexed.
-- depends: 0001_roles
CREATE TABLE code_facts (
  tenant_id  text  NOT NULL,
  digest     bytea NOT NULL,
  facts      bytea NOT NULL,
  read_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, digest)
);
COMMENT ON TABLE code_facts IS 'What a file says, by its contents: it is parsed once, whatever commits it is in.';
COMMENT ON COLUMN code_facts.facts IS 'JSON; as bytes, since names may hold what jsonb refuses.';

CREATE TABLE code_snapshots (
  tenant_id       text   NOT NULL,
  repository      text   NOT NULL,
  commit_sha      text   NOT NULL,
  snapshot_id     bigint GENERATED ALWAYS AS IDENTITY,
  indexed_time    timestamptz NOT NULL DEFAULT clock_timestamp(),
  contents_digest bytea  NOT NULL,
  counts          json   NOT NULL,
  graph           bytea  NOT NULL,
  PRIMARY KEY (tenant_id, repository, commit_sha),
  UNIQUE (tenant_id, snapshot_id)
);
COMMENT ON COLUMN code_snapshots.contents_digest IS 'Of all that was read: an equal one has the same graph.';
COMMENT ON COLUMN code_snapshots.graph IS 'The packed graph, as it is in the online store.';
CREATE INDEX code_snapshots_by_time ON code_snapshots (tenant_id, repository, indexed_time DESC, snapshot_id DESC);

CREATE TABLE code_files (
  tenant_id        text    NOT NULL,
  snapshot_id      bigint  NOT NULL,
  path             text    NOT NULL,
  language         text    NOT NULL,
  digest           bytea,
  is_test          boolean NOT NULL,
  test_count       integer NOT NULL,
  syntax_errors    boolean NOT NULL,
  skipped          text    NOT NULL,
  PRIMARY KEY (tenant_id, snapshot_id, path),
  FOREIGN KEY (tenant_id, snapshot_id) REFERENCES code_snapshots (tenant_id, snapshot_id) ON DELETE CASCADE
);
COMMENT ON COLUMN code_files.skipped IS 'Why nothing of it was read; empty where it was.';
CREATE INDEX code_files_by_digest ON code_files (tenant_id, digest);

CREATE TABLE code_definitions (
  tenant_id         text    NOT NULL,
  snapshot_id       bigint  NOT NULL,
  path              text    NOT NULL,
  definition_number integer NOT NULL,
  name              text    NOT NULL,
  kind              text    NOT NULL,
  first_line        integer NOT NULL,
  last_line         integer NOT NULL,
  PRIMARY KEY (tenant_id, snapshot_id, path, definition_number),
  FOREIGN KEY (tenant_id, snapshot_id) REFERENCES code_snapshots (tenant_id, snapshot_id) ON DELETE CASCADE
);

CREATE TABLE code_imports (
  tenant_id     text    NOT NULL,
  snapshot_id   bigint  NOT NULL,
  path          text    NOT NULL,
  import_number integer NOT NULL,
  specifier     text    NOT NULL,
  target_path   text,
  is_local      boolean NOT NULL,
  PRIMARY KEY (tenant_id, snapshot_id, path, import_number),
  FOREIGN KEY (tenant_id, snapshot_id) REFERENCES code_snapshots (tenant_id, snapshot_id) ON DELETE CASCADE
);
COMMENT ON COLUMN code_imports.target_path IS 'A file that is imported; null where none of this repository was found.';
CREATE INDEX code_imports_by_target ON code_imports (tenant_id, snapshot_id, target_path);

DO $body$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['code_facts', 'code_snapshots', 'code_files', 'code_definitions', 'code_imports'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY own_tenant ON %I TO conductor_ingest, conductor_reader
       USING (tenant_id = current_setting(''conductor.tenant_id'', true))', name);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO conductor_ingest', name);
    EXECUTE format('GRANT SELECT ON %I TO conductor_reader', name);
  END LOOP;
END
$body$;
