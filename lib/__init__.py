"""Improved TokenPose with Sparsity: train and evaluate sparse pose transformers."""

__version__ = "0.1.0"
