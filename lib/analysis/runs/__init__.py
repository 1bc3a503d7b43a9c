"""Finished runs, read and plotted, for tools/plot.py."""
