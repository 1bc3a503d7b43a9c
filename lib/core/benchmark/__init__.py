"""Time, work and memory of the variants, for tools/benchmark.py."""
