"""What needs all the rooms at once: embedded platform, demo, replay, simulation, data sets, bench."""
