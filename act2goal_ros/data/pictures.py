"""Picture files and arrays (H, W, 3) uint8 in RGB order."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Rgb = npt.NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
SMALLEST, LARGEST = 16, 8192  # pixels a side
ASPECT = 0.02  # by which width / height may differ from what is needed
# encoding: (channels, order of R, G, B within them)
ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}


class ImageError(ValueError):
    """An image that cannot be used; the message names the value and what was expected."""


def check_size(width: int, height: int) -> None:
    """Raises ImageError when a side is shorter than SMALLEST or longer than LARGEST pixels."""
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise ImageError(f"image of {width} × {height} pixels, each side must be {SMALLEST} … {LARGEST}")


def check_aspect(rgb: Rgb, wanted: tuple[int, int], of: str) -> None:
    """Raises ImageError unless the picture has the proportions of `wanted` (height, width), which are those of `of`."""
    height, width = rgb.shape[:2]
    if abs(width * wanted[0] / (height * wanted[1]) - 1.0) > ASPECT:
        raise ImageError(
            f"image of {width} × {height} pixels, {of} has {wanted[1]} × {wanted[0]}: proportions may differ by {ASPECT:.0%}"
        )


def middle(rgb: Rgb, wanted: tuple[int, int] = (1, 1)) -> Rgb:
    """The largest part of the picture about its centre with the proportions of `wanted` (height, width); a view."""
    height, width = rgb.shape[:2]
    rows = min(height, round(width * wanted[0] / wanted[1]))
    columns = min(width, round(height * wanted[1] / wanted[0]))
    top, left = (height - rows) // 2, (width - columns) // 2
    return rgb[top : top + rows, left : left + columns]


def middle_square(rgb: Rgb, side: int) -> Rgb:
    """The middle square of a picture, averaged down to side × side pixels. Raises ImageError when it is smaller than that."""
    square = middle(rgb)
    if min(square.shape[:2]) < side:
        raise ImageError(f"image of {rgb.shape[1]} × {rgb.shape[0]} pixels, {side} × {side} are needed")
    if square.shape[:2] == (side, side):
        return square
    import cv2  # the fastest by far, and loaded where a camera runs

    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


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


def to_rgb(message: Any) -> Rgb:
    """The picture of a sensor_msgs/Image, of rclpy or of a recording, (H, W, 3) uint8 RGB; a view of the message's memory where
    the encoding is rgb8 without padding.

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


def shrink(rgb: Rgb, largest: int) -> Rgb:
    """The picture with its longer side at most `largest` pixels, in its own proportions."""
    height, width = rgb.shape[:2]
    scale = largest / max(height, width)
    if scale >= 1.0:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
