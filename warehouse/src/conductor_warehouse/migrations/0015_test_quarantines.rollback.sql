DROP TABLE test_repositories, test_quarantines;
