"""Replay: a recorded history through the real stack, in event-time order. The judge of every model."""
