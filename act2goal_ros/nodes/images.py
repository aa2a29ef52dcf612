"""Images between ROS messages, files and NumPy arrays (H, W, 3) uint8 in RGB order."""

from __future__ import annotations

import array
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

Rgb = npt.NDArray[np.uint8]

# encoding: (channels, order of R, G, B within them)
ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
SMALLEST, LARGEST = 16, 8192  # pixels a side


class ImageError(ValueError):
    """An image that cannot be used; the message names the value and what was expected."""


def to_rgb(message: Image) -> Rgb:
    """The picture of a message, (H, W, 3) uint8 RGB; a view of the message's memory where the encoding is rgb8 without
    padding.

    Raises ImageError for an encoding, size, row length or amount of data that does not fit.
    """
    if message.encoding not in ENCODINGS:
        raise ImageError(f"encoding '{message.encoding}' is none of {', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    check_size(width, height)
    if step < width * channels:
        raise ImageError(f"step {step} bytes is less than width {width} × {channels} bytes of {message.encoding}")
    if len(message.data) != step * height:
        raise ImageError(f"{len(message.data)} bytes of data, expected step {step} × height {height} = {step * height}")
    pixels = (
        np.frombuffer(message.data, np.uint8)
        .reshape(height, step)[:, : width * channels]
        .reshape(height, width, channels)
    )
    return pixels if message.encoding == "rgb8" else np.ascontiguousarray(pixels[:, :, order])


def check_size(width: int, height: int) -> None:
    """Raises ImageError when a side is shorter than SMALLEST or longer than LARGEST pixels."""
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise ImageError(f"image of {width} × {height} pixels, each side must be {SMALLEST} … {LARGEST}")


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
    data.frombytes(memoryview(np.ascontiguousarray(rgb)).cast("B"))
    message.data = data
    return message


def load(path: str | Path) -> Rgb:
    """The picture in a file, (H, W, 3) uint8 RGB.

    Raises ImageError when the file is missing, empty, truncated, no image, or too small or large.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ImageError(f"no image file {path}" if not path.exists() else f"{path} is no file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decode(content)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def decode(content: bytes) -> Rgb:
    """The picture in the bytes of a PNG, JPEG, BMP, WebP or TIFF file, (H, W, 3) uint8 RGB, turned as its EXIF says.

    Raises ImageError when they are truncated, damaged or no image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            check_size(*picture.size)
            rgb = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except UnidentifiedImageError:
        start = content[:8].hex() or "nothing"
        expected = ", ".join(FORMATS)
        raise ImageError(f"no image: {len(content)} bytes that start with {start}, expected {expected}") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ImageError(f"truncated or damaged image of {len(content)} bytes: {error}") from error
    return rgb


def shrink(rgb: Rgb, largest: int) -> Rgb:
    """The picture with its longer side at most `largest` pixels, in its own proportions."""
    from PIL import Image

    height, width = rgb.shape[:2]
    scale = largest / max(height, width)
    if scale >= 1.0:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
