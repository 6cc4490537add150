"""The predictor "build-duration": how long a build takes if it passes.

The median is a robust rule (the median of the pipeline's latest 15 passed builds) times a learned factor; the interval
is the pipeline's own recent error, which follows drift without retraining, reshaped by learned tails and stretched by a
conformal factor. Without anything learned the model degrades to the rule.
"""
