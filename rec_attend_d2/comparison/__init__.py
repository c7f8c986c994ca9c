"""Trains and evaluates models of different kinds on equal terms, and writes a report. See tools/benchmark.py."""
