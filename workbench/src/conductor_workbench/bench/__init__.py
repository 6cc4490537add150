"""`conductor bench`: what is fast, what is not, each beside its floor in the same run. Start at ``run.py``."""
