DROP FUNCTION ensure_partitions;
DROP FUNCTION run_as_owner;
DROP FUNCTION drop_time_table;
DROP FUNCTION create_time_table;
DROP FUNCTION has_timescale;
DROP TABLE time_tables;
DROP SCHEMA conductor_tenant;
