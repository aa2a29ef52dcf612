"""Re-hashing: which frames of a plan the policy is to look at now, at what times, and when the plan is no good any more. No ROS.

Times are s on the node clock, absolute unless called offsets; latents (C, h, w) float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from act2goal_ros.control.progress import Floats, PlanPosition, ProgressMode, ProgressTracker
from act2goal_ros.model.msth import select


@dataclass(frozen=True, kw_only=True)
class RehashLimits:
    """What is selected, and when another plan is asked for.

    horizon: P, s of dense frames ahead; distal: M, frames beyond; max_age: s after which a plan must not be used;
    replan_age: s after which another is asked for; max_distance: RMS of the live latent to the imagined way, max_shift: s
    behind or ahead of the plan's clock: more asks for another; patience: frames in a row too far before that;
    shift_step: s of change of shift that renews the selection.
    """

    horizon: float
    distal: int
    max_age: float = 1.5
    replan_age: float = 0.75
    max_distance: float = 1.0
    max_shift: float = 0.5
    patience: int = 3
    shift_step: float = 0.05


@dataclass(frozen=True, kw_only=True)
class KnownPlan:
    """What re-hashing needs of a plan. start: s; offsets (F,) s, the first `dense` of them dense; latents (F, C, h, w)."""

    plan_id: str
    goal_id: str
    start: float
    offsets: npt.NDArray[np.float64]
    dense: int
    latents: Floats
    start_latent: Floats
    goal_latent: Floats


@dataclass(frozen=True)
class Hashed:
    """A selection: indices (S,) ascending into the plan's frames, their absolute times (S,) s, which are proximal (S,)."""

    plan_id: str
    goal_id: str
    indices: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    proximal: npt.NDArray[np.bool_]
    valid_until: float
    shift: float


class Rehasher:
    """Holds one plan, follows the robot along it, and renews the selection when progress crosses a frame."""

    def __init__(self, limits: RehashLimits, tracker: ProgressTracker) -> None:
        self.limits = limits
        self._tracker = tracker
        self.plan: KnownPlan | None = None
        self._hashed: Hashed | None = None
        self._far = 0
        self._asked: set[str] = set()

    @property
    def mode(self) -> ProgressMode:
        """Whether the latent or the clock gives the progress."""
        return self._tracker.mode

    def set_plan(self, plan: KnownPlan) -> Hashed:
        """Takes a plan and returns its first selection. Raises ProgressError for shapes that do not fit."""
        self._tracker.set_plan(plan.start, plan.offsets, plan.latents, plan.start_latent)
        self.plan, self._far = plan, 0
        self._asked.clear()
        self._hashed = self._select(0.0, 0.0)
        return self._hashed

    def clear(self) -> None:
        """Forgets the plan."""
        self._tracker.clear()
        self.plan = self._hashed = None

    def update(self, now: float, live: npt.ArrayLike) -> tuple[PlanPosition, Hashed | None]:
        """Position of the live latent of the frame taken at `now`, and the new selection if it changed.

        Raises ProgressError without a plan or for a latent of another shape.
        """
        at = self._tracker.update(now, live)
        assert self._hashed is not None
        self._far = self._far + 1 if at.distance > self.limits.max_distance else 0
        new = self._select(at.position, at.shift)
        same = np.array_equal(new.indices, self._hashed.indices) and np.array_equal(new.proximal, self._hashed.proximal)
        if same and abs(new.shift - self._hashed.shift) < self.limits.shift_step:
            return at, None
        self._hashed = new
        return at, new

    def complaint(self, at: PlanPosition) -> str:
        """Why another plan is wanted, with value and bound; empty if none is, or if this plan had that complaint before."""
        limits = self.limits
        reasons = {
            "distance": (
                self._far >= limits.patience,
                f"{at.distance:.2f} RMS from the imagined way for {self._far} frames, at most {limits.max_distance:.2f}",
            ),
            "age": (at.age > limits.replan_age, f"{at.age:.2f} s old, at most {limits.replan_age:.2f} s"),
            "shift": (
                abs(at.shift) > limits.max_shift,
                f"{at.shift:+.2f} s off its clock, at most {limits.max_shift:.2f} s",
            ),
        }
        for name, (holds, text) in reasons.items():
            if holds and name not in self._asked:
                self._asked.add(name)
                return text
        return ""

    def _select(self, position: float, shift: float) -> Hashed:
        assert self.plan is not None
        plan = self.plan
        chosen = select(plan.offsets, plan.dense, position, self.limits.horizon, self.limits.distal)
        return Hashed(
            plan_id=plan.plan_id,
            goal_id=plan.goal_id,
            indices=chosen.indices,
            times=plan.start + plan.offsets[chosen.indices] + shift,
            proximal=chosen.proximal,
            valid_until=plan.start + self.limits.max_age,
            shift=shift,
        )
