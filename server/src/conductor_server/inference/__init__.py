"""Models run on other people's tensors: no features are read and nothing is replaced."""
