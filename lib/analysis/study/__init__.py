"""Ablation studies: variants of one configuration, trained, tested and compared."""
