"""What a training tells: a bar with the time left, a log as CSV, TensorBoard's files, pictures."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import image, scalar
from tqdm import tqdm

from act2goal_ros.learning.checkpoint import write
from act2goal_ros.learning.schedule import Schedule


class Events:
    """Scalars and pictures for TensorBoard in <folder>/events.*; what an earlier run wrote from `step` on is hidden.

    Written at once: the libraries' own writers use a thread, which dies when a disk is full and leaves the training hanging.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}.{step}")  # else two in a second were one
        self._file.write_event(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        """scalars by tag; pictures (H, W, 3) uint8 by tag."""
        parts = [scalar(tag, value) for tag, value in scalars.items()]
        parts += [image(tag, picture, dataformats="HWC") for tag, picture in pictures.items()]
        summary = Summary(value=[value for part in parts for value in part.value])
        self._file.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._file.flush()


class Report:
    """Tells how a training goes. What cannot be written is said and, but for the log's rows, lost; the training goes on.

    Files: <folder>/<name>.csv, a row for each step told; <folder>/<name>.png, the newest picture; <folder>/tensorboard/<name>/.
    """

    def __init__(self, folder: Path, name: str, schedule: Schedule, step: int, elapsed: float) -> None:
        self._folder, self._name, self._by_steps, self._first = folder, name, schedule.steps is not None, step
        self._log = folder / f"{name}.csv"
        self._rows: list[str] = []
        self._has_begun = False
        self._events: Events | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._try(lambda: self._forget(step))
        total, unit = (schedule.steps, "step") if self._by_steps else (round(60 * schedule.minutes), "s")
        self._bar = tqdm(total=total, initial=step if self._by_steps else round(elapsed), unit=unit, desc=name)

    def progress(self, step: int, elapsed: float) -> None:
        """Moves the bar."""
        self._bar.update((step if self._by_steps else round(elapsed)) - self._bar.n)

    def row(self, step: int, elapsed: float, losses: Mapping[str, float], others: Mapping[str, float]) -> None:
        """A step's losses, and its rate, gradient norm and the like."""
        shown = {"step": step} | {name: f"{value:.3f}" for name, value in losses.items()}
        self._bar.set_postfix(shown | ({"skipped": int(others["skipped"])} if others.get("skipped") else {}))
        if not self._has_begun:
            self._has_begun = True
            self._try(lambda: self._begin(step, ",".join(["step", "seconds", *losses, *others])))
        self._rows.append(",".join([str(step), f"{elapsed:.1f}", *(f"{value:.9g}" for value in [*losses.values(), *others.values()])]))
        self._try(self._write_rows)
        scalars = {f"loss/{name}": value for name, value in losses.items()} | {f"step/{name}": value for name, value in others.items()}
        self._try(lambda: self._write_events(step, scalars, {}))

    def check(self, step: int, losses: Mapping[str, float], picture: np.ndarray) -> None:
        """Losses on held-out data, and a picture (H, W, 3) uint8 of what the models do there."""
        self.say(f"{self._name}: {step} steps; held out: {', '.join(f'{name} {value:.4g}' for name, value in losses.items())}")
        scalars = {f"held_out/{name}": value for name, value in losses.items()}
        self._try(lambda: self._write_events(step, scalars, {"held_out": picture}))
        self._try(lambda: self._write_picture(picture))

    def say(self, text: str) -> None:
        """A line for people, above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self.say(f"{self._name}: the training goes on, but what it told was not written: {error}")

    def _begin(self, step: int, columns: str) -> None:
        """Heads the log; one with other columns, as of a training with other losses, is kept as <name>-until-<step>.csv."""
        if self._log.exists():
            with self._log.open() as file:
                same = file.readline().rstrip("\n") == columns
            if same:
                return
            self._log.rename(self._folder / f"{self._name}-until-{step}.csv")
        self._rows.insert(0, columns)

    def _write_rows(self) -> None:
        """Appends the rows not yet written, all or none."""
        size = self._log.stat().st_size if self._log.exists() else 0
        try:
            with self._log.open("ab") as file:
                file.write("".join(row + "\n" for row in self._rows).encode())
        except OSError:
            if self._log.exists():
                with self._log.open("r+b") as file:
                    file.truncate(size)
            raise
        self._rows.clear()

    def _write_events(self, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray]) -> None:
        if self._events is None:
            self._events = Events(self._folder / "tensorboard" / self._name, self._first)
        try:
            self._events.write(step, scalars, pictures)
        except OSError:
            self._events, self._first = None, step + 1  # the file ends in the middle of a record: the next goes into another
            raise

    def _write_picture(self, picture: np.ndarray) -> None:
        _, data = cv2.imencode(".png", picture[..., ::-1])
        write(self._folder / f"{self._name}.png", len(data), lambda file: file.write(data.tobytes()))

    def _forget(self, step: int) -> None:
        """Takes out of the log what lies after the checkpoint that is gone on from: it will be done again."""
        if self._log.exists():
            lines = self._log.read_text().splitlines()
            numbers = [line.partition(",")[0] for line in lines]
            kept = [line + "\n" for line, number in zip(lines, numbers, strict=True) if not number.isdigit() or int(number) <= step]
            text = "".join(kept).encode()
            write(self._log, len(text), lambda file: file.write(text))
