"""People in pictures and videos, for tools/predict.py."""
