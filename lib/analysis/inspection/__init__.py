"""Attention of the keypoint tokens and what pruning removes, for tools/inspect_sparsity.py."""
