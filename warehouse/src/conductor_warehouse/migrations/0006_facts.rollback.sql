DROP TABLE usage_measurements, quality_scores, test_results, completed_builds;
