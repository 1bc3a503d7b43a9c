"""A window that shows a video."""

import os
import sys

import cv2
import numpy as np

_ESCAPE = 27


def has_screen() -> bool:
    """Whether windows can be opened; Qt aborts the process without a screen."""
    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


def show(title: str, rgb: np.ndarray) -> bool:
    """Show an image, uint8 RGB [H, W, 3]; return false once the user closes the window.

    `q`, Escape or the window's own button close it.
    """
    cv2.imshow(title, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    key = cv2.waitKey(1) & 0xFF
    is_open = cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
    return is_open and key not in (_ESCAPE, ord("q"))
