"""Synthetic people, drawn from a seed."""
