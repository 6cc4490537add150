"""Events from streams: a loop that stores them, and the streams that it can take them from."""
