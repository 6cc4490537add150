"""Data quality: profiles of what comes in, checks of whole batches against them, parked batches, reports.

A single event that breaks its rules is a dead letter (events.py). Here a tenant's *batch* is looked at, whose events
may each be valid and yet be wrong together: durations in another unit, one time for all, a field that vanished.
"""
