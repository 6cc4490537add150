"""Test intelligence: which tests fail, which to run, in which order, which are flaky."""
