DROP TABLE feature_backfills;
