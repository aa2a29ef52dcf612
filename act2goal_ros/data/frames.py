"""Frames from a camera device, a stream, a video file, a picture or a folder of pictures. No ROS."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from act2goal_ros.data.pictures import ImageError, Rgb, load

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class SourceError(RuntimeError):
    """A source that cannot be opened or gives no frames; the message names it and what is wrong."""


class FrameSource(Protocol):
    """Gives frames (H, W, 3) uint8 RGB; read blocks until the next and raises SourceError when there is none."""

    paced: bool  # whether read itself waits for the next frame, as a device does

    def read(self) -> Rgb:
        """The next frame."""

    def close(self) -> None:
        """Releases the device."""


class Pictures:
    """Pictures one after another, again and again."""

    paced = False

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._next = 0
        self._kept: dict[Path, Rgb] = {}

    def read(self) -> Rgb:
        path = self._files[self._next % len(self._files)]
        self._next += 1
        if path not in self._kept:
            try:
                rgb = load(path)
            except ImageError as error:
                raise SourceError(str(error)) from error
            if len(self._files) > 1:
                return rgb
            self._kept[path] = rgb
        return self._kept[path]

    def close(self) -> None:
        self._kept.clear()


class Capture:
    """A device, stream or video file read by OpenCV; a file starts again at its end."""

    def __init__(self, address: str | int, width: int, height: int, rate: float) -> None:
        import cv2

        self._cv2: Any = cv2
        self._address = address
        self._is_file = isinstance(address, str) and Path(address).is_file()
        self.paced = not self._is_file
        self._capture: Any = cv2.VideoCapture(address)
        if not self._capture.isOpened():
            raise SourceError(f"{_name(address)} cannot be opened")
        if not self._is_file:
            if width and height:
                self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
                self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
            self._capture.set(cv2.CAP_PROP_FPS, rate)
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self) -> Rgb:
        good, bgr = self._capture.read()
        if not good and self._is_file:
            self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, 0)
            good, bgr = self._capture.read()
        if not good:
            raise SourceError(f"{_name(self._address)} gives no frame")
        rgb: Rgb = self._cv2.cvtColor(bgr, self._cv2.COLOR_BGR2RGB)
        return rgb

    def close(self) -> None:
        self._capture.release()


def open_source(source: str, width: int = 0, height: int = 0, rate: float = 30.0) -> FrameSource:
    """Opens '/dev/video0' or '0', 'rtsp://…' and the like, a video file, a picture, or a folder of pictures.

    width, height, rate are asked of a device, which may give something else. Raises SourceError.
    """
    if re.fullmatch(r"\d+", source):
        return Capture(int(source), width, height, rate)
    if "://" in source:
        return Capture(source, width, height, rate)
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not files:
            raise SourceError(f"folder {path} holds no picture ({', '.join(PICTURES)})")
        return Pictures(files)
    if not path.exists():
        raise SourceError(f"there is no device, file or folder {path}")
    return Pictures([path]) if path.suffix.lower() in PICTURES else Capture(str(path), width, height, rate)


class Grabber:
    """Reads a source in a thread of its own, opens it again when it fails, and starts over when it hangs.

    open: makes the source. on_frame(rgb): called from the thread; may raise SourceError. period: s between frames of a source
    that does not wait by itself. patience: s without a frame until it counts as stalled. `problem` says what is wrong, '' if nothing.
    """

    def __init__(
        self, open: Callable[[], FrameSource], on_frame: Callable[[Rgb], None], period: float, patience: float
    ) -> None:
        self._open, self._on_frame, self._period, self._patience = open, on_frame, period, patience
        self._generation = 0
        self._last = time.monotonic()
        self._fault = ""
        self.frames = self.reopened = 0
        self._begin()

    @property
    def problem(self) -> str:
        """Why there are no frames."""
        if time.monotonic() - self._last <= self._patience:
            return ""
        return f"no frame for {self._patience:g} s" + (f": {self._fault}" if self._fault else "")

    def check(self) -> None:
        """To be called now and then: a thread that hangs in its source is left behind, and another one started."""
        if not self._fault and time.monotonic() - self._last > 5 * self._patience:
            self.reopened += 1
            self._last = time.monotonic() - self._patience - 1e-3
            self._begin()

    def close(self) -> None:
        """Ends reading; waits a moment for the thread."""
        self._generation += 1
        self._thread.join(self._patience)

    def _begin(self) -> None:
        self._generation += 1
        self._thread = threading.Thread(target=self._run, args=(self._generation,), name="grabber", daemon=True)
        self._thread.start()

    def _run(self, generation: int) -> None:
        while generation == self._generation:
            try:
                source = self._open()
            except SourceError as error:
                self._fault = str(error)
                time.sleep(min(1.0, self._patience))
                continue
            try:
                self._read(source, generation)
            except SourceError as error:
                self._fault = str(error)
                self.reopened += 1
                time.sleep(min(1.0, self._patience))
            finally:
                source.close()

    def _read(self, source: FrameSource, generation: int) -> None:
        due = time.monotonic()
        while generation == self._generation:
            rgb = source.read()
            if generation != self._generation:
                return
            self._on_frame(rgb)
            self._last, self._fault = time.monotonic(), ""
            self.frames += 1
            if not source.paced:
                due = max(due + self._period, time.monotonic() - self._period)
                time.sleep(max(0.0, due - time.monotonic()))


def _name(address: str | int) -> str:
    return f"camera {address}" if isinstance(address, int) else address
