"""Runs that are over, read and drawn, for tools/plot.py."""
