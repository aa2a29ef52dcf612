"""Samples for goal-conditioned behaviour cloning: a frame, a picture of the goal, and what was commanded next.

Episodes, how often each of their steps is learnt from, and which later frame is the goal are those of this project's own training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from act2goal_ros.learning.batches import Sampler, to_tensor


@dataclass
class Samples:
    """B samples."""

    live: Tensor  # (B, 3, 128, 128) 0 .. 1
    goal: Tensor
    state: Tensor  # (B, 2 J + 1) joints rad, rad/s, gripper 0 open .. 1 closed
    actions: Tensor  # (B, R, J + 1) joints rad, gripper; of the steps that follow
    weights: Tensor  # (B, R) 0 where the expert was pushed, or the recording had ended


class Clones(Sampler):
    """Draws them."""

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        """So many; they follow from the generator alone."""
        self._generator = generator
        chosen = np.minimum(np.searchsorted(self._probability, generator.random(count)), len(self._starts) - 1)
        rows = [self._sample(*self._starts[i].tolist()) for i in chosen]
        live, goal, state, actions, weights = (np.stack(column) for column in zip(*rows, strict=True))
        numbers = (torch.from_numpy(np.asarray(part, np.float32)) for part in (state, actions, weights))
        return Samples(to_tensor(live), to_tensor(goal), *numbers)

    def _sample(self, index: int, now: int) -> tuple[np.ndarray, ...]:
        episode = self._episodes.all[index]
        goal, _, last, _ = self._goal(index, now)
        steps = now + np.arange(1, self._config.chunk_steps + 1)
        kept = np.minimum(steps, last)
        state = np.concatenate([episode.joints[now], episode.velocities[now], episode.gripper[now : now + 1]])
        weights = np.where(episode.disturbed[kept] | (steps > last), 0.0, 1.0)
        frames = episode.frames
        return frames[now // episode.stride], frames[goal // episode.stride], state, episode.command[kept], weights


def statistics(clones: Clones, count: int = 2000) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and deviation of states (2 J + 1,) and of actions (J + 1,)."""
    samples = clones.draw(count, np.random.default_rng(0))
    actions = samples.actions.flatten(0, 1)
    return samples.state.mean(0), samples.state.std(0) + 1e-3, actions.mean(0), actions.std(0) + 1e-3
