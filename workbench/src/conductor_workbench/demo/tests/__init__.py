"""The demo of test intelligence: a history of test runs, asked about run by run before each began."""
