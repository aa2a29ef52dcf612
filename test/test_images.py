"""Images between messages, files and arrays."""

from __future__ import annotations

import array
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sensor_msgs.msg import Image

from act2goal_ros.nodes import images

RGB = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)


def message(encoding: str, pixels: Any, padding: int = 0) -> Image:
    """A message of (H, W, C) pixels with `padding` bytes at the end of each row."""
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)))
    return Image(
        height=height, width=width, encoding=encoding, step=rows.shape[1], data=array.array("B", rows.tobytes())
    )


def test_round_trip() -> None:
    sent = images.to_message(RGB)
    assert (sent.height, sent.width, sent.step, sent.encoding) == (20, 30, 90, "rgb8")
    assert isinstance(sent.data, array.array)
    assert np.array_equal(images.to_rgb(sent), RGB)


def test_a_slice_that_is_not_contiguous() -> None:
    assert np.array_equal(images.to_rgb(images.to_message(RGB[:, 2:28:1])), RGB[:, 2:28])
    assert np.array_equal(images.to_rgb(images.to_message(RGB[::-1])), RGB[::-1])


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_encodings(encoding: str, padding: int) -> None:
    alpha = np.full((20, 30, 1), 9, np.uint8)
    pixels = {
        "rgb8": RGB,
        "bgr8": RGB[:, :, ::-1],
        "rgba8": np.concatenate([RGB, alpha], axis=2),
        "bgra8": np.concatenate([RGB[:, :, ::-1], alpha], axis=2),
        "mono8": RGB[:, :, :1],
    }[encoding]
    expected = np.repeat(RGB[:, :, :1], 3, axis=2) if encoding == "mono8" else RGB
    assert np.array_equal(images.to_rgb(message(encoding, pixels, padding)), expected)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"encoding": "16UC1"}, "encoding '16UC1' is none of rgb8, bgr8, rgba8, bgra8, mono8"),
        ({"height": 0}, "image of 30 × 0 pixels, each side must be 16 … 8192"),
        ({"width": 9000}, "image of 9000 × 20 pixels"),
        ({"step": 80}, "step 80 bytes is less than width 30 × 3 bytes of rgb8"),
        ({"height": 25}, r"1800 bytes of data, expected step 90 × height 25 = 2250"),
        ({"encoding": "rgba8"}, "step 90 bytes is less than width 30 × 4 bytes of rgba8"),
    ],
)
def test_wrong_messages_name_value_and_bound(change: dict[str, Any], error: str) -> None:
    wrong = images.to_message(RGB)
    for name, value in change.items():
        setattr(wrong, name, value)
    with pytest.raises(images.ImageError, match=error):
        images.to_rgb(wrong)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff"])
def test_files(tmp_path: Path, name: str) -> None:
    Picture.fromarray(RGB).save(tmp_path / name)
    assert np.array_equal(images.load(tmp_path / name), RGB)


def test_pictures_with_few_colours_grey_or_transparent(tmp_path: Path) -> None:
    for mode in ("P", "L", "RGBA", "1"):
        Picture.fromarray(RGB).convert(mode).save(tmp_path / "a.png")
        assert images.load(tmp_path / "a.png").shape == RGB.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_refused(kind: str) -> None:
    stream = io.BytesIO()
    Picture.fromarray(np.tile(RGB, (5, 5, 1))).save(stream, kind)
    whole = stream.getvalue()
    assert images.decode(whole).shape == (100, 150, 3)
    for part in (0.9, 0.5, 0.1):
        with pytest.raises(images.ImageError, match="truncated or damaged|no image"):
            images.decode(whole[: int(len(whole) * part)])


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(images.ImageError, match=r"no image file .*none\.png"):
        images.load(tmp_path / "none.png")
    with pytest.raises(images.ImageError, match="is no file"):
        images.load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(images.ImageError, match=r"a\.png: no image: 0 bytes that start with nothing, expected PNG"):
        images.load(tmp_path / "a.png")


def test_shrink_keeps_proportions() -> None:
    large = np.zeros((480, 640, 3), np.uint8)
    assert images.shrink(large, 320).shape == (240, 320, 3)
    assert images.shrink(large, 640) is large


@pytest.mark.parametrize(
    ("size", "wanted", "part"),
    [((48, 64), (1, 1), (0, 8, 48, 48)), ((72, 128), (128, 128), (0, 28, 72, 72)), ((64, 48), (1, 1), (8, 0, 48, 48)),
     ((48, 64), (48, 64), (0, 0, 48, 64)), ((64, 64), (3, 4), (8, 0, 48, 64))],
)  # fmt: skip
def test_the_middle(size: tuple[int, int], wanted: tuple[int, int], part: tuple[int, int, int, int]) -> None:
    rgb = np.random.default_rng(2).integers(0, 255, (*size, 3), np.uint8)
    top, left, height, width = part
    assert np.array_equal(images.middle(rgb, wanted), rgb[top : top + height, left : left + width])


def test_the_middle_square_is_averaged_and_never_enlarged() -> None:
    rgb = np.kron(np.array([[0, 200], [100, 60]], np.uint8), np.ones((24, 24), np.uint8))[:, :, None].repeat(3, axis=2)
    wide = np.pad(rgb, ((0, 0), (8, 8), (0, 0)), constant_values=255)
    assert np.array_equal(images.middle_square(wide, 16)[::8, ::8, 0], [[0, 200], [100, 60]])
    assert int(images.middle_square(wide, 1)[0, 0, 0]) == 90
    assert np.array_equal(images.middle_square(wide, 48), rgb)
    with pytest.raises(images.ImageError, match="image of 64 × 48 pixels, 49 × 49 are needed"):
        images.middle_square(wide, 49)


@pytest.mark.parametrize(
    ("size", "message"),
    [((480, 640), "image of 640 × 480 pixels, the model has 128 × 128: proportions may differ by 2%; the camera node can cut"),
     ((720, 1280), "image of 1280 × 720 pixels, the model has 128 × 128"),
     ((100, 100), "image of 100 × 100 pixels, the model needs at least 128 × 128")],
)  # fmt: skip
def test_frames_that_do_not_fit_the_model_are_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(images.ImageError, match=message):
        images.check_for_model(np.zeros((*size, 3), np.uint8), (128, 128))
    images.check_for_model(np.zeros((480, 484, 3), np.uint8), (128, 128))
