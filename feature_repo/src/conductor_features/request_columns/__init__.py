"""Columns computed from a request alone, the same in training and in the server: one file per kind of request."""
