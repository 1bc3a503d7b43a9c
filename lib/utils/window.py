"""A window that shows a moving picture."""

import os
import subprocess
import sys

import cv2
import numpy as np

_ESCAPE = 27


def has_screen() -> bool:
    """Whether a window can be opened here.

    Asked in a process of its own, since Qt ends the one that asks where there is no screen.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    question = "import cv2; cv2.namedWindow('?'); cv2.destroyAllWindows()"
    asked = subprocess.run([sys.executable, "-c", question], capture_output=True)
    return asked.returncode == 0


class Window:
    """A window by its title; `q`, Escape or its own button close it."""

    def __init__(self, title: str) -> None:
        self.title = title

    def show(self, rgb: np.ndarray) -> bool:
        """Show a picture, uint8 RGB [H, W, 3]; false once the user has closed the window."""
        cv2.imshow(self.title, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        is_open = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        return is_open and key not in (_ESCAPE, ord("q"))

    def close(self) -> None:
        """Take the window away."""
        cv2.destroyAllWindows()
