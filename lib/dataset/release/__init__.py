"""Conversion of official releases to MPII's layout."""
