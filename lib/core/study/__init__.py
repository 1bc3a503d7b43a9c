"""Variants compared, for tools/study.py."""
