"""From a recording with times of its own to an episode on the model's time grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.data.pictures import ImageError, Rgb, middle_square
from act2goal_ros.learning.dataset import Episode

Array = NDArray[np.float64]
Sampled = Callable[[Array], Array]
FRAME_STRIDE = 2  # steps between frames, as in what the simulator records
ROUNDING = 1e-4  # s, by which stamps in single precision may be off


class RecordingError(ValueError):
    """A recording that gives no episode; the message says what is missing or wrong, with values and bounds."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The model's time grid and pictures, and what may be missing of a recording."""

    step: float = 0.05  # s
    size: int = 128  # pixels a side; the middle square of a picture, averaged down
    frame_tolerance: float = 0.06  # s from a step to the frame nearest to it
    joint_gap: float = 0.25  # s between two joint states


@dataclass(frozen=True)
class Camera:
    """What one camera saw, as it was asked for: times (F,) s of its frames; frames(ascending indices) → these pictures."""

    name: str
    times: Array
    frames: Callable[[Sequence[int]], Iterator[Rgb]]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What was recorded of one episode; all times in s on one clock, N joint states.

    times (N,), joints (N, J) rad, velocities (N, J) rad/s or None where not recorded; gripper(t (T,)) → (T,) 0 open .. 1 closed;
    command(t (T,)) → (T, J + 1), the set-point in force; cameras: at least one, in the order of their pictures from the top;
    disturbed(t (T,)) → (T,) whether that set-point was not the demonstrator's, None: it always was.
    """

    source: str
    environment: str
    joint_names: tuple[str, ...]
    times: Array
    joints: Array
    velocities: Array | None
    gripper: Sampled
    command: Sampled
    cameras: tuple[Camera, ...]
    disturbed: Sampled | None = None

    def frames_of(self, camera: Camera) -> str:
        """What to call a camera's frames."""
        return "frames" if len(self.cameras) == 1 else f"frames of {camera.name}"


def to_episode(recorded: Timeline, grid: Grid) -> Episode:
    """The episode: joints interpolated at every step, each camera's nearest frame at every second, no labels; its goal is its last frame.

    Raises RecordingError naming the time and the bound where samples are missing, not finite, or not in order.
    """
    check_times(recorded.times, "joint states", grid.joint_gap)
    for camera in recorded.cameras:
        check_times(camera.times, recorded.frames_of(camera), None)
    times = _steps(recorded, grid)
    joints = interpolate(times, recorded.times, recorded.joints)
    if recorded.velocities is not None and np.isfinite(recorded.velocities).all():
        velocities = interpolate(times, recorded.times, recorded.velocities)
    else:
        velocities = np.gradient(joints, grid.step, axis=0)
    unlabelled = np.full((len(times), 3), np.nan, np.float32)
    return Episode(
        frames=np.concatenate([_pictures(camera, times, recorded.frames_of(camera), grid) for camera in recorded.cameras], axis=1),
        joints=joints.astype(np.float32),
        velocities=velocities.astype(np.float32),
        gripper=recorded.gripper(times).astype(np.float32),
        command=recorded.command(times).astype(np.float32),
        disturbed=recorded.disturbed(times) > 0.5 if recorded.disturbed else np.zeros(len(times), bool),
        cube=unlabelled,
        target=unlabelled,
        environment=recorded.environment,
        joint_names=recorded.joint_names,
        source=recorded.source,
        cameras=tuple(camera.name for camera in recorded.cameras),
    )


def check_times(times: Array, what: str, gap: float | None) -> None:
    """Raises RecordingError unless there are at least two times, ascending, at most `gap` s apart."""
    if len(times) < 2:
        raise RecordingError(f"{len(times)} {what}, at least 2 needed")
    if not np.isfinite(times).all():
        raise RecordingError(f"{what}: time of sample {int(np.argmin(np.isfinite(times)))} is not finite")
    steps = np.diff(times)
    if (steps <= 0).any():
        i = int(np.argmax(steps <= 0))
        raise RecordingError(f"{what}: time does not increase: sample {i + 1} is {steps[i]:.4f} s after the one before")
    if gap is not None and steps.max() > gap:
        i = int(np.argmax(steps))
        raise RecordingError(f"{what}: none for {steps[i]:.2f} s at {times[i] - times[0]:.2f} s, at most {gap:g} s")


def interpolate(at: Array, times: Array, values: Array) -> Array:
    """Linear interpolation of (N, C) values at (T,) times → (T, C); the ends are held."""
    return np.column_stack([np.interp(at, times, column) for column in values.T])


def held(at: Array, times: Array, values: Array) -> Array:
    """The newest of (N, ...) values at each of (T,) times; the first before it came."""
    return values[np.maximum(np.searchsorted(times, at + ROUNDING, side="right") - 1, 0)]


def _steps(recorded: Timeline, grid: Grid) -> Array:
    """(T,) s: the steps while there are joint states and frames."""
    streams = {"joint states": recorded.times} | {recorded.frames_of(camera): camera.times for camera in recorded.cameras}
    start, end = max(times[0] for times in streams.values()), min(times[-1] for times in streams.values())
    if end - start < 2 * grid.step:
        last, first = max(streams, key=lambda name: streams[name][0]), min(streams, key=lambda name: streams[name][-1])
        raise RecordingError(
            f"{' and '.join(streams)} together for {max(end - start, 0.0):.2f} s, at least {2 * grid.step:g} s needed: "
            f"{last} begin at {start - recorded.times[0]:.2f} s, {first} end at {end - recorded.times[0]:.2f} s"
        )
    return np.asarray(start + grid.step * np.arange(int((end - start + ROUNDING) / grid.step) + 1), np.float64)


def _nearest(frame_times: Array, at: Array, tolerance: float, what: str) -> list[int]:
    after = np.clip(np.searchsorted(frame_times, at), 1, len(frame_times) - 1)
    indices = np.where(at - frame_times[after - 1] <= frame_times[after] - at, after - 1, after)
    away = np.abs(frame_times[indices] - at)
    if away.max() > tolerance + ROUNDING:
        i = int(np.argmax(away))
        raise RecordingError(f"{what}: the nearest to {at[i] - at[0]:.2f} s is {away[i]:.3f} s away, at most {tolerance:g} s")
    return [int(i) for i in indices]


def _pictures(camera: Camera, times: Array, what: str, grid: Grid) -> NDArray[np.uint8]:
    """(F, size, size, 3), one for every second of the steps' times; a frame nearest to several is read once."""
    indices = _nearest(camera.times, times[::FRAME_STRIDE], grid.frame_tolerance, what)
    once = sorted(set(indices))
    try:
        read = {index: middle_square(rgb, grid.size) for index, rgb in zip(once, camera.frames(once), strict=True)}
    except ImageError as error:
        raise RecordingError(f"{what}: {error}") from error
    return np.stack([read[index] for index in indices])
