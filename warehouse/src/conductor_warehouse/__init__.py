"""System of record: schema, event ingestion, feature computation."""
