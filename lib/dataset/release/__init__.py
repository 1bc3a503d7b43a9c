"""Official releases made into MPII's layout."""
