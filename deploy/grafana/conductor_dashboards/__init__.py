"""The Grafana dashboards, as code: `make dashboards` writes them as files, which Grafana imports.

Tests check that each query's series and labels are those that the real processes export, and that the files are those
that this makes.
"""
