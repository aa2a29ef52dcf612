"""Picture files and arrays (H, W, 3) uint8 in RGB order."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Rgb = npt.NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
SMALLEST, LARGEST = 16, 8192  # pixels a side


class ImageError(ValueError):
    """An image that cannot be used; the message names the value and what was expected."""


def check_size(width: int, height: int) -> None:
    """Raises ImageError when a side is shorter than SMALLEST or longer than LARGEST pixels."""
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise ImageError(f"image of {width} × {height} pixels, each side must be {SMALLEST} … {LARGEST}")


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


def shrink(rgb: Rgb, largest: int) -> Rgb:
    """The picture with its longer side at most `largest` pixels, in its own proportions."""
    height, width = rgb.shape[:2]
    scale = largest / max(height, width)
    if scale >= 1.0:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
