DROP TABLE parked_events, parked_batches, data_findings, data_profiles;
