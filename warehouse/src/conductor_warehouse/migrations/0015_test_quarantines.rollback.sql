DROP TABLE test_repositories, test_quarantines;
DROP INDEX test_results_failed;
