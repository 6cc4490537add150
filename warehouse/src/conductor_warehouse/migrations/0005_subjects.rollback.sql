DROP TABLE change_requests, incidents, deployments, usage_reports, quality_evaluations, test_runs, tenants;
