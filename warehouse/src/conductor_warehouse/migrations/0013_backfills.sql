-- How far the history of a tenant has been gone through for a feature view.
-- depends: 0002_inbox 0004_feature_logs
CREATE TABLE feature_backfills (
  view_key     text        NOT NULL REFERENCES feature_views ON DELETE CASCADE,
  tenant_id    text        NOT NULL,
  event_time   timestamptz NOT NULL,
  source       text        NOT NULL,
  event_id     text        NOT NULL,
  event_count  bigint      NOT NULL,
  row_count    bigint      NOT NULL,
  started_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_time timestamptz,
  PRIMARY KEY (view_key, tenant_id)
);
COMMENT ON TABLE feature_backfills IS 'Events up to (event_time, source, event_id) have the rows that they ask for.';
COMMENT ON COLUMN feature_backfills.row_count IS 'Rows that were appended: those that were there already are not.';
