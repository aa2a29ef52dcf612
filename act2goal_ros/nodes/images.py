"""Images between ROS messages, files and NumPy arrays (H, W, 3) uint8 in RGB order."""

from __future__ import annotations

import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """The picture in the bytes of a PNG, JPEG, BMP, WebP or TIFF file, (H, W, 3) uint8 RGB.

    Raises ImageError when they are truncated or no image.
    """
    import cv2

    kind = _kind(content)
    if not kind:
        raise ImageError(
            f"no image: {len(content)} bytes that start with {content[:8].hex() or 'nothing'}, "
            "expected PNG, JPEG, BMP, WebP or TIFF"
        )
    if not _complete(content, kind):
        raise ImageError(f"truncated {kind} image: {len(content)} bytes without an end")
    bgr: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ImageError(f"damaged {kind} image: {len(content)} bytes that cannot be decoded")
    check_size(bgr.shape[1], bgr.shape[0])
    return np.ascontiguousarray(bgr[:, :, ::-1])


def _kind(content: bytes) -> str:
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if content[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if content[:2] == b"BM":
        return "BMP"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    return "TIFF" if content[:4] in (b"II*\x00", b"MM\x00*") else ""


def _complete(content: bytes, kind: str) -> bool:
    """Whether the end is there: decoders fill the missing part of a truncated file with grey instead of failing."""
    if kind == "PNG":
        return b"IEND" in content[-16:]
    if kind == "JPEG":
        return b"\xff\xd9" in content[-64:]
    if kind == "BMP":
        return len(content) >= int.from_bytes(content[2:6], "little")
    if kind == "WebP":
        return len(content) >= int.from_bytes(content[4:8], "little") + 8
    return True
