"""What happened in a rollout, ready to be drawn: live frames, goal, imagined frames and what was selected of them, joints.

All times are s since the rollout's first message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from act2goal_ros.data.rollout import Received, Rollout, read, stamp

Rgb = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]
ToRgb = Callable[[Any], Rgb]

COMMANDS = "joint_trajectory"
SMALL = ("goal", "selection", "progress", "control_status", "sim/state", "joint_states", COMMANDS, "plan")
STATES = {0: "idle", 1: "running", 2: "braking", 3: "holding"}


@dataclass(frozen=True)
class ImaginedFrames:
    """A plan that was decoded to pictures. time, start: of the frame it starts from; offsets (F,) s; chosen: index to proximal?"""

    time: float
    start: Rgb | None
    plan_id: str
    offsets: Array
    dense: int
    time_to_goal: float
    pictures: list[Rgb]
    chosen: dict[int, bool]


@dataclass
class Series:
    """Values (N, ...) at times (N,)."""

    times: Array = field(default_factory=lambda: np.zeros(0))
    values: Array = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass
class Story:
    """A rollout in the parts a picture shows. ahead: selected frames as rows of (time, s ahead of it, proximal 0/1)."""

    name: str
    facts: dict[str, str]
    duration: float
    goal: Rgb | None = None
    frames: list[tuple[float, Rgb]] = field(default_factory=list)
    imagined: list[ImaginedFrames] = field(default_factory=list)
    plans: int = 0
    ahead: Array = field(default_factory=lambda: np.zeros((0, 3)))
    joint_names: list[str] = field(default_factory=list)
    commanded: Series = field(default_factory=Series)
    measured: Series = field(default_factory=Series)
    gripper: Series = field(default_factory=Series)
    progress: Series = field(default_factory=Series)
    states: list[tuple[float, float, str, str]] = field(default_factory=list)
    success: Series = field(default_factory=Series)
    goal_ended: float | None = None


def tell(rollout: Rollout, to_rgb: ToRgb, frames: int = 9, plans: int = 3) -> Story:
    """Reads a complete rollout; keeps `frames` live frames and `plans` decoded plans, both spread over its time.

    Raises BagError when the rollout cannot be read.
    """
    story = Story(rollout.name, rollout.facts, rollout.duration)
    start, sorted_ = rollout.start, _by_topic(rollout)
    _goal(story, sorted_["goal"], start, to_rgb)
    end = min(story.duration, story.goal_ended + 0.3) if story.goal_ended is not None else story.duration
    decoded = [r for r in sorted_["plan"] if len(r.message.previews)]
    story.plans = len({r.message.plan_id for r in sorted_["plan"]})
    chosen = [decoded[k] for k in spread([r.time - start for r in decoded], plans, 0.0, 0.85 * end)]
    even = list(np.linspace(0.0, end, frames))
    seen = _live_frames(rollout, even + [stamp(r.message) - start for r in chosen], to_rgb)
    story.frames = list(dict(seen[: len(even)]).items())
    starts: list[Rgb | None] = [picture for _, picture in seen[len(even) :]]
    for received, live in zip(chosen, starts or [None] * len(chosen), strict=True):
        story.imagined.append(_imagined(received, live, sorted_["selection"], start, to_rgb))
    story.ahead = _ahead(sorted_["selection"], start)
    story.joint_names, story.commanded = _commanded(sorted_[COMMANDS], start)
    story.measured = _measured(sorted_["joint_states"], story.joint_names, start)
    story.states, story.gripper = _states(sorted_["control_status"], start)
    story.progress = _series(sorted_["progress"], start, lambda m: (m.progress, m.time_to_goal))
    story.success = _series(sorted_["sim/state"], start, lambda m: (m.success, m.at_rest_and_released))
    return story


def spread(times: Sequence[float], count: int, low: float, high: float) -> list[int]:
    """Indices of at most `count` of the ascending times, as evenly over [low, high] as there are."""
    if not len(times) or count < 1:
        return []
    wanted = np.linspace(low, high, count) if count > 1 else np.array([low])
    return sorted({int(np.argmin(np.abs(np.asarray(times) - t))) for t in wanted})


def _by_topic(rollout: Rollout) -> dict[str, list[Received]]:
    sorted_: dict[str, list[Received]] = {topic: [] for topic in SMALL}
    for received in read(rollout.directory, SMALL):
        sorted_[received.topic].append(received)
    return sorted_


def _goal(story: Story, goals: list[Received], start: float, to_rgb: ToRgb) -> None:
    """The goal's picture, and when it was no longer to be reached (state ACTIVE is 1)."""
    for received in goals:
        if len(received.message.image.data):
            story.goal = to_rgb(received.message.image)
        if received.message.state != 1 and story.goal_ended is None:
            story.goal_ended = received.time - start


def _live_frames(rollout: Rollout, wanted: Sequence[float], to_rgb: ToRgb) -> list[tuple[float, Rgb]]:
    """The live frame nearest to each of the times, with its own time; empty without any. Decodes no other."""
    times: list[float] = []

    def note(_: str, time: float) -> bool:
        times.append(time)
        return False

    for _ in read(rollout.directory, ["image_raw"], note):
        pass
    if not times:
        return []
    nearest = [times[int(np.argmin(np.abs(np.array(times) - rollout.start - t)))] for t in wanted]
    chosen = set(nearest)
    found = read(rollout.directory, ["image_raw"], lambda _, time: time in chosen)
    pictures = {r.time: to_rgb(r.message) for r in found}
    return [(t - rollout.start, pictures[t]) for t in nearest]


def _imagined(plan: Received, live: Rgb | None, selections: list[Received], start: float, to_rgb: ToRgb) -> ImaginedFrames:
    message = plan.message
    chosen: dict[int, bool] = {}
    for selection in selections:
        if selection.message.plan_id == message.plan_id:
            pairs = zip(selection.message.frame_indices, selection.message.proximal, strict=True)
            chosen |= {int(k): bool(near) for k, near in pairs if int(k) not in chosen}
    return ImaginedFrames(
        time=stamp(message) - start,
        start=live,
        plan_id=message.plan_id,
        offsets=np.asarray(message.frame_offsets, np.float64),
        dense=int(message.dense_frames),
        time_to_goal=float(message.time_to_goal),
        pictures=[to_rgb(image) for image in message.previews],
        chosen=chosen,
    )


def _ahead(selections: list[Received], start: float) -> Array:
    rows = []
    for selection in selections:
        time = stamp(selection.message)
        for at, near in zip(selection.message.frame_times, selection.message.proximal, strict=True):
            rows.append((time - start, at.sec + 1e-9 * at.nanosec - time, float(near)))
    return np.array(rows, np.float64).reshape(-1, 3)


def _commanded(commands: list[Received], start: float) -> tuple[list[str], Series]:
    """What the trajectories commanded over time: of each, the part before the next one begins."""
    if not commands:
        return [], Series()
    names = [str(name) for name in commands[0].message.joint_names]
    begins = [(stamp(r.message) or r.time) - start for r in commands]  # a stamp of zero means on arrival
    firsts = [begin + min(_since_start(r), default=0.0) for begin, r in zip(begins, commands, strict=True)]
    times, positions = [], []
    for received, begin, until in zip(commands, begins, [*firsts[1:], np.inf], strict=True):
        for seconds, point in zip(_since_start(received), received.message.points, strict=True):
            if begin + seconds < until and len(point.positions) == len(names):
                times.append(begin + seconds)
                positions.append(point.positions)
    return names, Series(np.array(times), np.array(positions).reshape(len(times), len(names)))


def _since_start(command: Received) -> list[float]:
    """Seconds of a trajectory's points from its stamp."""
    return [p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in command.message.points]


def _measured(states: list[Received], names: list[str], start: float) -> Series:
    """Measured positions of the commanded joints (of all joints without commands)."""
    if not states:
        return Series()
    columns = list(states[0].message.name)
    wanted = [n for n in names if n in columns] or columns
    index = [columns.index(n) for n in wanted]
    rows = [r for r in states if list(r.message.name) == columns and len(r.message.position) == len(columns)]
    values = np.array([np.asarray(r.message.position)[index] for r in rows]).reshape(len(rows), len(index))
    return Series(np.array([r.time - start for r in rows]), values)


def _states(statuses: list[Received], start: float) -> tuple[list[tuple[float, float, str, str]], Series]:
    """Spans of (from, to, state, why) of the policy, and the commanded gripper."""
    spans: list[tuple[float, float, str, str]] = []
    for received in statuses:
        message, time = received.message, received.time - start
        key = (STATES.get(message.state, str(message.state)), message.stop_detail if message.stop_reason.value else "")
        if spans and spans[-1][2] == key[0] and (not key[1] or spans[-1][3]):
            spans[-1] = (spans[-1][0], time, key[0], spans[-1][3])
        else:
            if spans:
                spans[-1] = (spans[-1][0], time, *spans[-1][2:])
            spans.append((time, time, *key))
    return spans, _series(statuses, start, lambda m: (m.commanded_gripper,))


def _series(received: list[Received], start: float, values: Callable[[Any], tuple[float, ...]]) -> Series:
    if not received:
        return Series()
    return Series(np.array([r.time - start for r in received]), np.array([values(r.message) for r in received], float))
