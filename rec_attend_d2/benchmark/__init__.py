"""Measures how fast models train and infer, phase by phase, on synthetic batches; see tools/benchmark_speed.py."""
