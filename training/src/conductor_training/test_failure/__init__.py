"""The predictor "test-failure": how likely each test is to fail in a run that is about to start.

The base is the test's own history: the middle of how its latest results and all of its results went. Trees correct it
by a bounded learned share, and beta calibration turns the score into a probability. Naive rules are candidates too, and
win where the learned correction is not better. Order and selection follow from the probability.
"""
