"""Video files of pictures (H, W, 3) uint8 RGB, by PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import av
import numpy as np

from act2goal_ros.data.pictures import Rgb

CODECS = {"av1": "libsvtav1", "h264": "libx264"}
QUALITY = {"av1": {"crf": "20", "preset": "10"}, "h264": {"crf": "20"}}  # about 40 dB at 128 × 128 pixels; chroma at half size
KEY_FRAMES = "2"  # frames from one to the next, as LeRobot has them: any frame is found fast


class VideoError(ValueError):
    """A video that cannot be read or written; the message names the file and the time."""


class VideoWriter:
    """Writes one MP4 file; a context manager. height and width must be even. Raises VideoError."""

    def __init__(self, path: Path, fps: int, height: int, width: int, codec: str = "av1") -> None:
        if height % 2 or width % 2:
            raise VideoError(f"{path}: pictures of {width} × {height} pixels; both must be even")
        self._path = path
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = cast("Any", self._container.add_stream(CODECS[codec], rate=fps, options={"g": KEY_FRAMES, **QUALITY[codec]}))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        self.frames = 0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, rgb: Rgb) -> None:
        """Adds a picture."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if self.frames:
            packets = self._stream.encode(frame)
        else:  # which opens the encoder
            with _same_scheduling():
                packets = self._stream.encode(frame)
        self._container.mux(packets)
        self.frames += 1


@contextmanager
def _same_scheduling() -> Iterator[None]:
    """SVT-AV1 gives itself and whoever calls it SCHED_FIFO 99 where it may, and would starve a robot: all of it is taken back."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = {thread: os.sched_getscheduler(thread) for thread in _threads()}
    try:
        yield
    finally:
        for thread in _threads():
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) != before.get(thread, policy):
                    os.sched_setscheduler(thread, before.get(thread, policy), parameters)


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def read_frames(path: Path, times: Sequence[float], tolerance: float) -> Iterator[Rgb]:
    """The pictures at ascending times (s of the video), each at most `tolerance` s away. Raises VideoError."""
    wanted = list(times)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(max(int((wanted[0] - tolerance) / stream.time_base), 0), stream=stream)
            for frame in container.decode(stream):
                if frame.time is None or frame.time < wanted[0] - tolerance:
                    continue
                if frame.time > wanted[0] + tolerance:
                    raise VideoError(f"{path}: no picture within {tolerance:.3f} s of {wanted[0]:.3f} s")
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                wanted.pop(0)
                if not wanted:
                    return
    except (OSError, IndexError, av.FFmpegError) as error:
        raise VideoError(f"{path} cannot be read: {error}") from error
    raise VideoError(f"{path} ends before {wanted[0]:.3f} s")


def describe(path: Path) -> dict[str, Any]:
    """What LeRobot keeps of a video: height, width, codec, pixel format, frames a second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(stream.base_rate or 0),
            "video.channels": 3,
            "has_audio": False,
        }
