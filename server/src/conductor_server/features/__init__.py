"""Where feature rows come from."""
