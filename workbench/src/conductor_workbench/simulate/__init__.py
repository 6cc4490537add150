"""Simulated builds of many tenants, with known truth."""
