"""Images between ROS messages and NumPy arrays (H, W, 3) uint8 in RGB order; pictures in files as in data.pictures."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import numpy as np

from act2goal_ros.data.pictures import ImageError, Rgb, check_aspect, check_size, decode, load, middle, middle_square, shrink, to_rgb

if TYPE_CHECKING:
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

__all__ = [
    "ImageError", "Rgb", "check_aspect", "check_for_model", "check_size", "decode", "load", "middle", "middle_square", "shrink",
    "to_message", "to_rgb",
]  # fmt: skip

EDGE = "source topic:<name>, output_size; docs/realtime.md"


def check_for_model(rgb: Rgb, wanted: tuple[int, int]) -> None:
    """Raises ImageError when a camera frame is smaller than the model's (height, width) or of other proportions."""
    height, width = rgb.shape[:2]
    if height < wanted[0] or width < wanted[1]:
        raise ImageError(f"image of {width} × {height} pixels, the model needs at least {wanted[1]} × {wanted[0]}")
    try:
        check_aspect(rgb, wanted, "the model")
    except ImageError as error:
        raise ImageError(f"{error}; the camera node can cut and scale them ({EDGE})") from None


def to_message(rgb: Rgb, header: Header | None = None) -> Image:
    """An rgb8 message of an (H, W, 3) uint8 RGB picture."""
    from sensor_msgs.msg import Image

    message = Image()
    if header is not None:
        message.header = header
    message.height, message.width = rgb.shape[:2]
    message.encoding = "rgb8"
    message.step = 3 * message.width
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(rgb).data)
    message.data = data
    return message
