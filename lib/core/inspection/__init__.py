"""What the network looks at and what it prunes, for tools/inspect_sparsity.py."""
