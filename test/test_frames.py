"""Frames from files and devices, and what happens when they stop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from act2goal_ros.data.frames import Grabber, Pictures, Rgb, SourceError, open_source

BLACK = np.zeros((32, 48, 3), np.uint8)


def wait_for(condition: Any, seconds: float = 5.0) -> None:
    """Waits until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_folder_gives_its_pictures_in_order_again_and_again(tmp_path: Path) -> None:
    for k in range(3):
        Picture.fromarray(BLACK + k).save(tmp_path / f"{k}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(str(tmp_path))
    assert [int(source.read()[0, 0, 0]) for _ in range(5)] == [0, 1, 2, 0, 1]
    source.close()


def test_one_picture(tmp_path: Path) -> None:
    Picture.fromarray(BLACK + 7).save(tmp_path / "a.png")
    source = open_source(str(tmp_path / "a.png"))
    assert isinstance(source, Pictures) and source.read() is source.read()


def test_a_video_file_starts_again_at_its_end(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = str(tmp_path / "a.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (48, 32))
    assert writer.isOpened()
    for k in range(3):
        writer.write(BLACK + 80 * k)
    writer.release()
    source = open_source(path)
    levels = [round(float(source.read().mean()) / 80) for _ in range(7)]
    assert levels == [0, 1, 2, 0, 1, 2, 0] and not source.paced
    source.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: str(p / "none"), "there is no device, file or folder"),
        (lambda p: str(p), "holds no picture"),
        (lambda p: "99", "camera 99 cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, make: Any, message: str) -> None:
    if message.startswith("camera"):
        pytest.importorskip("cv2")
    with pytest.raises(SourceError, match=message):
        open_source(make(tmp_path))


class Device:
    """A device that can fail and hang."""

    paced = True
    opened = 0

    def __init__(self) -> None:
        type(self).opened += 1
        self.fail, self.hang = False, threading.Event()
        self.hang.set()

    def read(self) -> Rgb:
        """A frame every 10 ms."""
        self.hang.wait()
        time.sleep(0.01)
        if self.fail:
            raise SourceError("unplugged")
        return BLACK

    def close(self) -> None:
        """Nothing to release."""


def test_a_device_that_fails_or_hangs_is_told_of_and_opened_again() -> None:
    devices: list[Device] = []
    frames: list[Rgb] = []

    def open_device() -> Device:
        devices.append(Device())
        return devices[-1]

    grabber = Grabber(open_device, frames.append, period=0.01, patience=0.1)
    wait_for(lambda: len(frames) > 5)
    assert grabber.problem == ""
    devices[0].fail = True
    wait_for(lambda: "unplugged" in grabber.problem)
    assert grabber.problem == "no frame for 0.1 s: unplugged"
    wait_for(lambda: grabber.problem == "")
    assert len(devices) == 2 and grabber.reopened == 1
    devices[1].hang.clear()
    wait_for(lambda: grabber.problem == "no frame for 0.1 s")
    wait_for(lambda: grabber.check() is None and len(devices) == 3)
    wait_for(lambda: grabber.problem == "")
    before = len(frames)
    devices[1].hang.set()  # the thread that was left behind ends without a word
    wait_for(lambda: len(frames) > before + 5)
    grabber.close()


def test_files_are_paced() -> None:
    frames: list[float] = []
    source = Pictures([])
    source.read = lambda: BLACK  # type: ignore[method-assign]
    grabber = Grabber(lambda: source, lambda _: frames.append(time.monotonic()), period=0.02, patience=0.5)
    time.sleep(0.5)
    grabber.close()
    assert 10 <= len(frames) <= 28
