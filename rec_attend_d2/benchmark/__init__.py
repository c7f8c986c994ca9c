"""Models side by side on equal terms (tools/benchmark.py), and how fast they are (tools/benchmark_speed.py)."""
