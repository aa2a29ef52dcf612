"""How long and how fast to train, and the average of the weights."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class TrainingError(RuntimeError):
    """A training that cannot start or go on; the message says why, and what is kept."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast, by minutes or, if `steps` is given, by steps.

    By steps a training is a function of its data and its seed. By minutes the same command fits machines of different speed,
    but the learning rate follows the clock: samples and noise are the same each time, the curve is not.
    """

    minutes: float = 60.0
    steps: int | None = None
    learning_rate: float = 8e-4
    batch: int = 16  # plans a step, all processes together
    parts: int = 1  # a step's plans are computed in so many, their gradients added up; processes share them
    warm_up: float = 0.02
    hold: float = 0.0  # share of the training at the full rate, before it falls
    ema: float = 0.999
    clip: float = 1.0  # largest norm of the gradient
    patience: int = 10  # steps in a row that may be skipped because loss or gradient is not finite
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("minutes", "learning_rate", "batch", "parts", "warm_up", "clip", "patience"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}, it must be above 0")
        if self.steps is not None and self.steps < 1:
            raise TrainingError(f"steps is {self.steps}, at least 1 is needed")
        if self.batch % self.parts:
            raise TrainingError(f"batch {self.batch} cannot be divided into {self.parts} equal parts")
        if not 0.0 <= self.hold < 1.0:
            raise TrainingError(f"hold is {self.hold}, it must be from 0 to below 1")
        if self.seed < 0:
            raise TrainingError(f"seed is {self.seed}, it must not be negative")

    def done(self, step: int, elapsed: float) -> float:
        """Share of the training that is done, from 0 to 1, before step number `step` (from 0), `elapsed` seconds after its start."""
        return step / self.steps if self.steps else elapsed / 60 / self.minutes

    def rate(self, done: float) -> float:
        """Learning rate: warm-up, the full rate while it holds, then a cosine to a fiftieth."""
        rise = min(1.0, done / self.warm_up)
        fallen = min(max((done - self.hold) / (1.0 - self.hold), 0.0), 1.0)
        return self.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fallen)))

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """What differs from the schedule that a checkpoint was written under."""
        return [f"{name} {before[name]} → {value}" for name, value in asdict(self).items() if name in before and before[name] != value]


class Average:
    """Exponential moving average of a module's weights, in float32, with a warm-up."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay, self.count = decay, 0
        self.values = {name: _full(value.detach()).clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.count += 1
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(_full(value), 1 - decay)
            else:
                self.values[name].copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """While it lasts, the module has the averaged weights; afterwards its own again."""
        own = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.values)
        try:
            yield
        finally:
            module.load_state_dict(own)


def _full(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def seeded(seed: int, step: int, part: int) -> np.random.Generator:
    """Seeds torch, and returns a generator for NumPy, from these numbers alone: no state has to be kept between steps."""
    sequence = np.random.SeedSequence((seed, step, part))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
    return np.random.default_rng(sequence)
