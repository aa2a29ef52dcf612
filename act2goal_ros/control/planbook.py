"""Which plan the policy may act on: plan, features, selection and goal have to belong together and be recent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.stop import StopReason

Array = NDArray[np.float64]
T = TypeVar("T")
Cause = tuple[StopReason, str]


@dataclass(frozen=True)
class Selected:
    """Frames of a plan to act on: their indices (S,); shift s of all frame times; valid until an absolute time."""

    plan_id: str
    goal_id: str
    indices: NDArray[np.int64]
    shift: float
    valid_until: float


@dataclass(frozen=True)
class Plan:
    """A plan that may be acted on: features (L, F, T, W) float32, absolute frame times (F,) s, mask (F,) of the selected.

    `stamp` s is the time of the observation it was imagined from; until `valid_until` s it may be used.
    """

    plan_id: str
    stamp: float
    features: NDArray[np.float32]
    times: Array
    mask: NDArray[np.bool_]
    valid_until: float


class PlanBook:
    """Collects plans, features and selections, which arrive in any order; a new plan is used once it is complete."""

    KEPT = 3

    def __init__(self) -> None:
        self._frames: dict[str, tuple[float, Array]] = {}
        self._features: dict[str, NDArray[np.float32]] = {}
        self._selections: dict[str, Selected] = {}  # newest last

    def forget(self) -> None:
        """Drops everything: its times mean nothing any more."""
        for known in (self._frames, self._features, self._selections):
            known.clear()

    def add_plan(self, plan_id: str, stamp: float, offsets: Array) -> None:
        """Takes a plan's stamp, s, and its frames' offsets from it (F,), s."""
        _keep(self._frames, plan_id, (stamp, offsets))

    def add_features(self, plan_id: str, features: NDArray[np.float32]) -> None:
        """Takes a plan's features (L, F, T, W)."""
        _keep(self._features, plan_id, features)

    def select(self, selected: Selected) -> None:
        """Takes a selection."""
        _keep(self._selections, selected.plan_id, selected)

    def usable(self, goal_id: str, now: float) -> Plan | Cause:
        """The newest complete plan for this goal with its selection, or why there is none."""
        why: Cause = (StopReason.NO_SELECTION, "no frame selection yet")
        for k, selected in enumerate(reversed(self._selections.values())):
            plan = self._complete(selected, goal_id, now)
            if isinstance(plan, Plan):
                return plan
            why = plan if k == 0 else why
        return why

    def newest(self, goal_id: str, now: float) -> tuple[str, float]:
        """Id and age, s, of the plan to act on; empty and 0 when there is none."""
        plan = self.usable(goal_id, now)
        return (plan.plan_id, now - plan.stamp) if isinstance(plan, Plan) else ("", 0.0)

    def _complete(self, selected: Selected, goal_id: str, now: float) -> Plan | Cause:
        none = StopReason.NO_SELECTION
        if selected.goal_id != goal_id:
            return (none, f"the selection is for goal {selected.goal_id!r}, the goal is {goal_id!r}")
        if now > selected.valid_until:
            late = now - selected.valid_until
            return (StopReason.STALE_PLAN, f"plan {selected.plan_id!r} is {late:.3f} s past its time, allowed 0 s")
        frames, features = (self._frames.get(selected.plan_id), self._features.get(selected.plan_id))
        if frames is None or features is None:
            return (
                none,
                f"no {'plan' if frames is None else 'features'} for the selection of plan {selected.plan_id!r}",
            )
        stamp, offsets = frames
        if features.ndim != 4 or features.shape[1] != len(offsets):
            return (
                none,
                f"features of plan {selected.plan_id!r} have shape {features.shape}, its frames are {len(offsets)}",
            )
        if not ((selected.indices >= 0) & (selected.indices < len(offsets))).all():
            return (
                none,
                f"the selection names frame {selected.indices.max()} of plan {selected.plan_id!r} with {len(offsets)}",
            )
        mask = np.zeros(len(offsets), np.bool_)
        mask[selected.indices] = True
        times = stamp + offsets + selected.shift
        return Plan(selected.plan_id, stamp, features, times, mask, selected.valid_until)


def _keep(known: dict[str, T], key: str, value: T) -> None:
    known.pop(key, None)
    known[key] = value
    while len(known) > PlanBook.KEPT:
        del known[next(iter(known))]
