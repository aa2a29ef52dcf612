"""Training samples: plans along episodes, seen again from the frames that follow them."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from act2goal_ros.learning.checks import last_of_each, load_episodes
from act2goal_ros.learning.dataset import DatasetError, Episode
from act2goal_ros.model.config import PRESETS, ModelConfig
from act2goal_ros.model.msth import frame_offsets, select

HOLD_STEPS = 16  # at rest at the end of an episode (learning/simulate.py)
LATE_WEIGHT = 0.6  # how often a plan starts after the cube was let go at its target, against before
OTHER = 0.02  # m, by which a target changes when it is another object's
CHOICE_WEIGHT, CHOICE_STEPS = 6.0, 16  # how often a plan starts so soon after an object was chosen, when only the plan tells which
NEAR_WEIGHT, NEAR_STEPS = 2.0, 24  # how often a plan starts within so many steps before the gripper closes or opens
STILL = 0.03  # rad, how near all joints stay to where they end, once the robot has arrived
FRAME_DROPOUT, END_DROPOUT, PLAN_DROPOUT = 0.15, 0.03, 0.05
MILESTONE = 0.25  # how often a plan leads to what is done on the way instead of the end, where there is anything
PAUSED = 4.0  # how often to one with the arm elsewhere, as in other goals, against one with the gripper still above what it has placed
PAUSE = 40  # steps, the longest, in which the next object is chosen already, but no goal of this milestone shows it
AHEAD_WEIGHT = 2.0  # how often a plan starts with more than one object still to be handled
SHARES = {"cube-single": 0.5}  # of an environment's plans, against 1 of the others
LEAST_STEPS = 8  # of actions ahead of a live frame
AGES = ((0, 2), (2, 10), (0, 24))  # steps, a live frame each


@dataclass
class Batch:
    """B plans, V live frames each; see the model classes for shapes. Times in steps."""

    current: Tensor  # (B, C, H, W) latents
    goal: Tensor
    future: Tensor  # (B, F, C, H, W)
    offsets: Tensor  # (B, F)
    arrival: Tensor  # (B,) steps to the goal
    shown: Tensor  # (B, 2, 3, 128, 128) 0 .. 1, of current and goal
    pictures: Tensor  # (B V, 3, 128, 128) 0 .. 1
    live: Tensor  # (B V, C, H, W) latents
    live_arrival: Tensor  # (B V,)
    frame_times: Tensor  # (B V, F)
    frame_mask: Tensor  # (B V, F)
    joints: Tensor  # (B V, J)
    velocities: Tensor
    gripper: Tensor  # (B V, 1)
    actions: Tensor  # (B V, R, A) absolute
    weights: Tensor  # (B V, R)
    row_times: Tensor  # (B V, R)
    given_mask: Tensor  # (B V, R)
    cube: Tensor  # (B V, 3) m, in the arm's base frame, as target
    target: Tensor  # (B V, 3)
    keypoints: Tensor  # (B, F, K, 3), see learning/keypoints.py
    live_keypoints: Tensor  # (B V, K, 3)


class Episodes:
    """All usable episodes of a data set, with the latents of their frames once they are known; `skipped` are the others. Without
    `pictures` these may be of any size; without `labels` a simulator's are not looked at."""

    def __init__(
        self, folder: Path, limit: int | None = None, config: ModelConfig = PRESETS["tiny"], pictures: bool = True, labels: bool = True
    ) -> None:
        loaded = load_episodes(folder, config, limit, pictures)
        self.shards, self.by_shard, self.skipped = loaded.shards, loaded.by_shard, loaded.skipped
        if not labels:
            self.by_shard = [[episode.without_labels() for episode in shard] for shard in self.by_shard]
        self.all: list[Episode] = [episode for shard in self.by_shard for episode in shard]
        self.arrivals = [arrival(episode) for episode in self.all]
        self.latents: list[np.ndarray] = []

    def split(self, held_out: float = 0.03) -> tuple[list[int], list[int]]:
        """Indices of training and of held-out episodes (the last ones of each environment)."""
        if len(self.all) < 2:
            raise DatasetError(f"{len(self.all)} usable episode, at least 2 needed: one to learn from and one held out")
        kept = last_of_each([episode.environment for episode in self.all], held_out)
        return [i for i in range(len(self.all)) if i not in kept], sorted(kept)

    def random_frames(self, generator: np.random.Generator, count: int, among: list[int]) -> Tensor:
        """(count, 3, H, W) in 0 .. 1."""
        chosen = [self.all[i].frames for i in generator.choice(among, count)]
        return to_tensor(np.stack([frames[generator.integers(len(frames))] for frames in chosen]))


def arrival(episode: Episode) -> int:
    """Step from which the robot stays where it ends, at least HOLD_STEPS before the end."""
    away = np.flatnonzero(np.abs(episode.joints - episode.joints[-1]).max(1) > STILL)
    return min(int(away[-1]) + 1 if len(away) else 0, len(episode) - HOLD_STEPS)


def to_base(world: np.ndarray) -> np.ndarray:
    """(3,) m in OGBench's world frame → in the arm's base frame, which is turned by a quarter."""
    return np.stack([-world[1], world[0], world[2]])


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float in 0 .. 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(255.0)


class Sampler:
    """Draws batches from some of the episodes; deterministic for a seed."""

    def __init__(self, episodes: Episodes, among: list[int], config: ModelConfig, seed: int) -> None:
        self._episodes, self._config = episodes, config
        self._generator = np.random.default_rng(seed)
        starts = [(e, s, self._weight(episodes.all[e], s)) for e in among for s in range(0, len(episodes.all[e]) - 4, 2)]
        self._starts = np.array([(e, s) for e, s, _ in starts])
        weights = np.array([w for _, _, w in starts])
        if not weights.sum() > 0:
            raise DatasetError(f"every step of {len(among)} episodes is disturbed: at least one must be learnt from")
        self._probability = np.cumsum(_balanced(weights, [episodes.all[e].environment for e, _, _ in starts]))

    @staticmethod
    def _weight(episode: Episode, step: int) -> float:
        """Rare where little is to be learnt, frequent where the gripper is about to close or open."""
        soon = slice(step + 1, step + NEAR_STEPS)
        useful = 1.0 - float(episode.disturbed[soon].mean())
        if any(milestone > step + 2 for milestone in episode.milestones):
            useful *= AHEAD_WEIGHT
        since = episode.target[max(step - CHOICE_STEPS, 0) : step + 3]
        if episode.environment != "cube-single" and (step < CHOICE_STEPS or np.ptp(since, axis=0).max() > OTHER):
            return CHOICE_WEIGHT * useful
        if np.linalg.norm(episode.cube[step] - episode.target[step]) < 0.02 and episode.gripper[step] < 0.2:
            return LATE_WEIGHT * useful
        gripper = episode.command[soon, -1]
        return (NEAR_WEIGHT if gripper.min() < 0.5 < gripper.max() else 1.0) * useful

    def batch(self, plans: int, generator: np.random.Generator | None = None) -> Batch:
        """So many plans; with a generator they follow from it alone, not from what was drawn before."""
        self._generator = generator or self._generator
        chosen = np.searchsorted(self._probability, self._generator.random(plans))
        rows = [self._plan(*self._starts[i]) for i in np.minimum(chosen, len(self._starts) - 1)]
        arrays = {f.name: np.concatenate([row[f.name] for row in rows]) for f in fields(Batch)}
        pictures = {"pictures": to_tensor(arrays.pop("pictures")), "shown": to_tensor(arrays.pop("shown")).unflatten(0, (-1, 2))}
        return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()}, **pictures)

    def _plan(self, index: int, start: int) -> dict[str, np.ndarray]:
        c, generator = self._config, self._generator
        episode, latents = self._episodes.all[index], self._episodes.latents[index]
        goal, arrived, last, labelled = self._goal(index, start)
        offsets = frame_offsets(max(arrived - start, 0), c.vision_stride, c.dense_frames, c.distal_frames, c.spacing)
        future = latents[np.minimum(start + offsets, goal).astype(int) // episode.stride]
        ages = [2 * int(generator.integers(low // 2, high // 2 + 1)) for low, high in AGES]
        latest = max(last - LEAST_STEPS, start)  # with something to be learnt ahead
        lives = [self._live(episode, latents, min(start + age, latest), start, arrived, last, labelled, offsets) for age in ages]
        plan = {
            "current": latents[start // 2][None],
            "goal": latents[goal // 2][None],
            "future": future[None],
            "keypoints": self._keypoints(episode, np.minimum(start + offsets, goal).astype(int) // episode.stride)[None],
            "offsets": offsets[None].astype(np.float32),
            "arrival": np.array([max(arrived - start, 0)], np.float32),
        }
        plan = {name: np.asarray(value, np.float32) for name, value in plan.items()}
        shown = episode.frames[[start // episode.stride, goal // episode.stride]]
        return plan | {"shown": shown} | {name: np.concatenate([live[name] for live in lives]) for name in lives[0]}

    def _keypoints(self, episode: Episode, frames: np.ndarray) -> np.ndarray:
        """(len(frames), K, 3), NaN where there are no labels."""
        if episode.keypoints is None:
            return np.full((len(frames), self._config.keypoints, 3), np.nan, np.float32)
        return episode.keypoints[frames].astype(np.float32)

    def _goal(self, index: int, start: int) -> tuple[int, int, int, int]:
        """The goal's step, the step of arrival, the last one to be learnt from, and the one from which on object and target are others
        than the goal shows: of the end, or of a milestone."""
        episode, arrived = self._episodes.all[index], self._episodes.arrivals[index]
        milestones = np.array([step for step in episode.milestones if step > start + 2], int)
        if len(milestones) and self._generator.random() < MILESTONE:
            weights = np.array([PAUSED if episode.disturbed[step - LEAST_STEPS : step].mean() > 0.9 else 1.0 for step in milestones])
            step = int(self._generator.choice(milestones, p=weights / weights.sum()))
            first = max(step - PAUSE, 0)
            others = np.flatnonzero(np.abs(np.diff(episode.target[first : step + 1], axis=0)).max(1) > OTHER)
            step = step // episode.stride * episode.stride  # that of its frame
            return step, step, step, first + int(others[-1]) + 1 if len(others) else step
        return int(self._generator.integers(arrived + 2, len(episode))), arrived, len(episode) - 1, len(episode)

    def _live(
        self, episode: Episode, latents: np.ndarray, now: int, start: int, arrived: int, last: int, labelled: int, offsets: np.ndarray
    ) -> dict[str, np.ndarray]:
        c, generator = self._config, self._generator
        times = offsets - (now - start)
        rows = np.concatenate([np.arange(1, c.chunk_steps + 1), times[c.dense_frames :]])
        steps = np.clip(now + rows, 0, last).astype(int)
        weights = np.where(episode.disturbed[steps], 0.0, 1.0)
        weights[c.chunk_steps :] *= 0.3 * (rows[c.chunk_steps :] > 0)
        if last < len(episode) - 1:  # what comes after a milestone leads to another goal
            weights[now + rows > last] = 0.0
        mask = select(offsets, c.dense_frames, now - start, c.chunk_steps, c.distal_frames).mask(c.frames)
        dropout = np.where(np.arange(c.frames) == c.frames - 1, END_DROPOUT, FRAME_DROPOUT)
        mask &= (generator.random(c.frames) > dropout) & (generator.random() > PLAN_DROPOUT)
        prefix = int(generator.integers(1, c.prefix_steps + 1)) if generator.random() < 0.5 else 0
        row = {
            "live": latents[now // 2],
            "live_arrival": max(arrived - now, 0),
            "frame_times": times,
            "frame_mask": mask,
            "joints": episode.joints[now],
            "velocities": episode.velocities[now],
            "gripper": episode.gripper[now : now + 1],
            "actions": episode.command[steps],
            "weights": weights,
            "row_times": rows,
            "given_mask": np.arange(len(rows)) < prefix,
            "cube": to_base(episode.cube[now]) if now < labelled else np.full(3, np.nan),
            "target": to_base(episode.target[now]) if now < labelled and mask[-1] else np.full(3, np.nan),
            "live_keypoints": self._keypoints(episode, np.array([now // 2]))[0],
        }
        arrays = {name: np.asarray(value, np.float32)[None] for name, value in row.items()}
        return arrays | {"pictures": episode.frames[now // 2][None]}


def _balanced(weights: np.ndarray, environments: list[str]) -> np.ndarray:
    """(N,) weights scaled to a sum of 1, of which every environment has its share."""
    names, numbers = np.unique(environments, return_inverse=True)
    sums = np.bincount(numbers, weights)
    shares = np.array([SHARES.get(str(name), 1.0) for name in names]) * (sums > 0)
    return weights * (shares / np.where(sums > 0, sums, 1.0))[numbers] / shares.sum()


def action_scales(episodes: Episodes, among: list[int], config: ModelConfig, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Deviation of relative actions, (R, A), with a floor of 0.02 rad, and of joint velocities (J,)."""
    generator = np.random.default_rng(seed)
    relative, velocities = [], []
    for i in generator.choice(among, min(len(among), 200), replace=False):
        episode = episodes.all[i]
        for now in generator.integers(0, len(episode) - HOLD_STEPS, 8):
            steps = np.minimum(now + np.arange(1, config.chunk_steps + 1), len(episode) - 1)
            far = np.minimum(now + config.chunk_steps + np.linspace(14, 44, config.distal_frames).astype(int), len(episode) - 1)
            relative.append(episode.command[np.concatenate([steps, far])][:, :-1] - episode.joints[now])
            velocities.append(episode.velocities[now])
    joints = np.maximum(np.std(relative, 0), 0.02)
    scale = np.concatenate([joints, np.ones((len(joints), 1))], 1)
    return scale.astype(np.float32), np.maximum(np.std(velocities, 0), 0.05).astype(np.float32)
