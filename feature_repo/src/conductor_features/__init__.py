"""Feature definitions, request columns, the packed online store and its reader."""
