"""Networks for other runtimes, for tools/export.py."""
