"""Time, work and memory of a network, for tools/benchmark.py."""
