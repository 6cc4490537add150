"""Offline jobs: training frames, models, evaluation, calibration, ONNX export, publish."""
