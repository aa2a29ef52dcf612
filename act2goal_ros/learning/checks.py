"""Whether data can be learnt from by a model, before hours are spent on it."""

import numpy as np

from act2goal_ros.learning.batches import HOLD_STEPS, Episodes
from act2goal_ros.learning.dataset import DatasetError, Episode
from act2goal_ros.model.config import ModelConfig

LEAST_EPISODES = 2  # one is held out
LEAST_STEPS = HOLD_STEPS + 5


def check_data(episodes: Episodes, config: ModelConfig) -> None:
    """Raises DatasetError, with what is needed, if there is too little or it does not fit the model."""
    if len(episodes.all) < LEAST_EPISODES:
        raise DatasetError(f"{len(episodes.all)} episode, at least {LEAST_EPISODES} needed: one is held out")
    for shard, group in zip(episodes.shards, episodes.by_shard, strict=True):
        for number, episode in enumerate(group):
            if reason := _unfit(episode, config):
                raise DatasetError(f"episode {number} of {shard}: {reason}")
    if all(bool(episode.disturbed.all()) for episode in episodes.all):
        raise DatasetError("all steps of all episodes are marked as disturbed: at least one must be learnt from")


def _unfit(episode: Episode, config: ModelConfig) -> str:
    """What is wrong with an episode; empty if nothing is."""
    if len(episode) < LEAST_STEPS:
        return f"{len(episode)} steps, at least {LEAST_STEPS} needed"
    if episode.joints.shape[1] != config.joints or episode.command.shape[1] != config.action_size:
        return f"{episode.joints.shape[1]} joints, the model has {config.joints}"
    size = (config.camera_size, config.camera_size, 3)
    if episode.frames.shape[1:] != size or episode.frames.dtype != np.uint8:
        return f"frames {episode.frames.shape[1:]} {episode.frames.dtype}, the model takes {size} uint8"
    for name in ("joints", "velocities", "gripper", "command", "cube", "target"):
        rows = getattr(episode, name)
        if not np.isfinite(rows).all():
            step = int(np.argwhere(~np.isfinite(rows))[0][0])
            return f"{name} of step {step} is {rows[step]}: not finite"
    return ""
