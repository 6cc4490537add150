"""Features: a definition for each view, and the logs that their rows are appended to."""
