"""Public data sets, and their conversion to events."""
