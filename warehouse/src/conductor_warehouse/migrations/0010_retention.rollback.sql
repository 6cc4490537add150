DROP FUNCTION forget_statistics;
DROP TABLE tenant_retention;
