"""What of a repository's code leads to which tests: read from a checkout, kept as a graph, asked with a diff."""
