"""The training loop. A step is a function of the weights, the seed and its number, so a run cut anywhere goes on as if it had not been."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from act2goal_ros.learning.checkpoint import CannotWriteError, CheckpointError, differences, load_newest, load_weights, save
from act2goal_ros.learning.devices import made_on
from act2goal_ros.learning.report import Report
from act2goal_ros.learning.schedule import Average, Schedule, TrainingError, seeded
from act2goal_ros.model.config import ModelConfig

EASING = 200  # steps in which the rate rises to that of another schedule: an annealed optimizer would throw the weights away
MOST_UNSAVED = 10  # checkpoints in a row that may fail before the training stops


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained, and on what.

    module: its method `losses` turns a batch into scalars by name, its `config` is kept in the checkpoint; batch: so many samples,
    from this generator; weights: of the losses; groups: of the optimizer's parameters, with the `share` of the learning rate that is
    theirs; check: losses on held-out data, and a picture (H, W, 3) uint8, of the averaged weights; after: called after the step of this
    number (from 1).
    """

    name: str
    module: nn.Module
    batch: Callable[[np.random.Generator, int], Any]
    weights: dict[str, float]
    groups: list[dict[str, Any]]
    check: Callable[[], tuple[dict[str, float], np.ndarray]]
    after: Callable[[int], None] = lambda step: None


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Steps between rows of the log, steps between checks on held-out data, seconds between checkpoints."""

    log_steps: int = 20
    check_steps: int = 500
    checkpoint_s: float = 60.0


def fit(job: Job, schedule: Schedule, folder: Path, fabric: Fabric, cadence: Cadence | None = None) -> int:
    """Trains, from folder/<name>.pt where there is one, and gives the module its averaged weights; returns the steps done.

    Raises TrainingError if loss or gradient stay not finite, or if the last checkpoint cannot be written; CheckpointError.
    """
    return Trainer(job, schedule, folder, fabric, cadence or Cadence()).run()


class Trainer:
    """State and loop of one training; the same in all its processes, of which the first tells and writes."""

    def __init__(self, job: Job, schedule: Schedule, folder: Path, fabric: Fabric, cadence: Cadence) -> None:
        if schedule.parts % fabric.world_size:
            raise TrainingError(f"{schedule.parts} parts cannot be shared equally by {fabric.world_size} processes")
        self._job, self._schedule, self._fabric, self._cadence = job, schedule, fabric, cadence
        self._config: ModelConfig = job.module.config  # type: ignore[assignment]  # torch's modules may have anything
        self._module = fabric.setup_module(job.module)
        self._module.mark_forward_method("losses")
        self._parameters = [parameter for parameter in job.module.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(job.groups, lr=schedule.learning_rate)
        self._average = Average(job.module, schedule.ema)
        self._steps = self._skipped = self._in_a_row = self._unsaved = 0
        self._before, self._path = 0.0, folder / f"{job.name}.pt"
        self._eased: tuple[int, float] | None = None  # the step at which the schedule changed, and the rate until then
        changes = self._resume()
        self._started = self._saved = time.monotonic()
        self._report = Report(folder, job.name, schedule, self._steps, self._before) if fabric.is_global_zero else None
        if self._report and changes:
            self._report.say(f"{self._path}: goes on with {', '.join(changes)}")
        fabric.barrier()  # nothing is written before all have read

    def run(self) -> int:
        first = self._steps
        try:
            while self._schedule.done(self._steps, elapsed := self._elapsed()) < 1:
                self._step(elapsed)
            if self._report and self._steps > first:
                self._checkpoint(last=True)
            self._job.module.load_state_dict(self._average.values)
            if self._report:
                self._report.check(self._steps, *self._job.check())
        finally:
            if self._report:
                self._report.close()
        self._fabric.barrier()
        return self._steps

    def _step(self, elapsed: float) -> None:
        rate = self._rate(elapsed)
        losses = self._backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._schedule.clip).item()
        if math.isfinite(norm) and all(map(math.isfinite, losses.values())):
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group.get("share", 1.0)
            self._optimizer.step()
            self._average.update(self._job.module)
            self._in_a_row = 0
        else:
            self._skip(losses, norm)
        self._steps += 1
        self._job.after(self._steps)
        if self._report:
            self._tell(self._report, elapsed, losses, {"rate": rate, "norm": norm, "skipped": self._skipped})

    def _rate(self, elapsed: float) -> float:
        rate = self._schedule.rate(self._schedule.done(self._steps + (self._schedule.steps is not None), elapsed))
        if self._eased is None:
            return rate
        since, before = self._eased
        return min(rate, before + (rate - before) * (self._steps - since) / EASING) if self._steps < since + EASING else rate

    def _backward(self) -> dict[str, float]:
        """Sets the gradients to the mean over all parts of this step's batch, in all processes; returns the mean losses."""
        job, schedule, fabric = self._job, self._schedule, self._fabric
        mine = range(fabric.global_rank, schedule.parts, fabric.world_size)
        self._optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part in mine:
            batch = fabric.to_device(job.batch(seeded(schedule.seed, self._steps, part), schedule.batch // schedule.parts))
            with fabric.no_backward_sync(self._module, enabled=part != mine[-1]):
                with fabric.autocast(), made_on(fabric.device):
                    losses: dict[str, Tensor] = self._module.losses(batch)
                if losses.keys() != job.weights.keys():
                    raise TrainingError(f"weights are for {sorted(job.weights)}, losses are {sorted(losses)}")
                total = torch.stack([job.weights[name] * value for name, value in losses.items()]).sum()
                fabric.backward(total / len(mine))
            sums = {name: value.detach().float() + sums.get(name, 0.0) for name, value in losses.items()}
        means: Tensor = fabric.all_reduce(torch.stack(list(sums.values())) / len(mine))
        return dict(zip(sums, means.tolist(), strict=True))

    def _skip(self, losses: dict[str, float], norm: float) -> None:
        """Counts a step whose gradient is of no use. Raises TrainingError if there were too many in a row."""
        self._skipped += 1
        self._in_a_row += 1
        found = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        text = f"{self._job.name}: step {self._steps + 1} is skipped: loss {found}, norm of the gradient {norm:g}"
        if self._in_a_row >= self._schedule.patience:
            raise TrainingError(f"{text}; {self._in_a_row} in a row. The last checkpoint is {self._path}; a lower learning rate may help")
        if self._report:
            self._report.say(text)

    def _tell(self, report: Report, elapsed: float, losses: dict[str, float], others: dict[str, float]) -> None:
        """Moves the bar and, when it is time, writes a row, checks on held-out data, writes a checkpoint."""
        report.progress(self._steps, elapsed)
        if self._steps % self._cadence.log_steps == 0:
            report.row(self._steps, elapsed, losses, others)
        if self._steps % self._cadence.check_steps == 0:
            with self._average.applied(self._job.module):
                report.check(self._steps, *self._job.check())
        if time.monotonic() - self._saved >= self._cadence.checkpoint_s:
            self._checkpoint()

    def _elapsed(self) -> float:
        """Seconds trained, in this and earlier runs; the same in all processes, so that they take the same steps."""
        own = self._before + time.monotonic() - self._started
        return float(self._fabric.all_reduce(torch.tensor(own, dtype=torch.float64, device=self._fabric.device)))

    def _checkpoint(self, last: bool = False) -> None:
        """Writes the state. Where that fails it is tried again after the usual time; too often, or at the end: TrainingError."""
        state = {
            "model": self._job.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.values,
            "updates": self._average.count,
            "steps": self._steps,
            "skipped": self._skipped,
            "elapsed": self._before + time.monotonic() - self._started,
            "config": self._config.to_dict(),
            "schedule": asdict(self._schedule),
            "weights": self._job.weights,
            "eased": self._eased,
        }
        try:
            save(self._path, state)
            self._unsaved = 0
        except CannotWriteError as error:
            self._unsaved += 1
            if last or self._unsaved >= MOST_UNSAVED:
                raise TrainingError(f"{error}. The last checkpoint stays; with room made, the same command goes on from there") from error
            assert self._report is not None
            self._report.say(f"{error}; tried again in {self._cadence.checkpoint_s:g} s ({self._unsaved} of {MOST_UNSAVED})")
        self._saved = time.monotonic()

    def _resume(self) -> list[str]:
        """Takes over the newest checkpoint, if there is one; returns what is asked for otherwise than before."""
        state = load_newest(self._path, "model", "optimizer", "average", "steps", "elapsed", "config")
        if state is None:
            return []
        if differ := differences(state["config"], self._config):
            raise CheckpointError(f"checkpoint {self._path} is of another configuration: {'; '.join(differ)}")
        for weights in (state["model"], state["average"]):
            if missing := load_weights(self._job.module, weights, state["config"], self._path):
                raise CheckpointError(f"checkpoint {self._path} lacks {', '.join(missing[:5])}; --start-from takes what it has")
        self._job.module.load_state_dict(state["model"])
        try:
            self._optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CheckpointError(f"checkpoint {self._path} has another optimizer: {error}; --start-from takes its weights") from error
        for name, value in state["average"].items():
            self._average.values[name].copy_(value)
        self._steps, self._before, self._skipped = state["steps"], state["elapsed"], state.get("skipped", 0)
        self._average.count = state.get("updates", self._steps)
        before = state.get("weights", self._job.weights)
        others = [
            f"weight of {name} {before.get(name)} → {value}" for name, value in self._job.weights.items() if before.get(name) != value
        ]
        changes = self._schedule.changes(state.get("schedule", {}))
        self._eased = (self._steps, self._optimizer.param_groups[0]["lr"]) if changes else state.get("eased")
        return changes + others
