"""The demo: the main job once, on the embedded default, with a report at the end."""
