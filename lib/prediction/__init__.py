"""People in the user's images and videos, for tools/predict.py."""
