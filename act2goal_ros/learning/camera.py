"""What the recordings' camera shows where, from labels: the arm's tool, and the things it handles."""

from collections.abc import Iterator

import numpy as np
import torch

from act2goal_ros.learning.batches import Episodes, to_base
from act2goal_ros.learning.dataset import Episode
from act2goal_ros.learning.keypoints import which_is_handled
from act2goal_ros.learning.localiser import Projection
from act2goal_ros.learning.system import PLACE, System
from act2goal_ros.model.live import believed_shift
from act2goal_ros.model.spotter import TABLE

FEWEST_PICTURES = 100  # with the tool labelled, to fit the camera to
CAMERA_SPREAD = 0.15  # −1 .. 1 units, that labels may be from the first fit: cameras of random looks differ
EACH = 8  # pictures of an episode


def tool_projection(episodes: Episodes, system: System) -> np.ndarray:
    """(3, 4), of a point (m, 1) in the arm's base frame into the picture, −1 .. 1 at its outer places; zeros without labels of the tool."""
    joints, seen = [], []
    for episode, frames in _pictures(episodes):
        assert episode.keypoints is not None
        joints.append(episode.joints[episode.stride * frames])
        seen.append(episode.keypoints[frames, -1])
    labels = np.concatenate(seen) if seen else np.zeros((0, 3))
    there = labels[:, 2] > 0.5
    if there.sum() < FEWEST_PICTURES:
        return np.zeros((3, 4), np.float32)
    tools = system.expert.kinematics(torch.from_numpy(np.concatenate(joints)[there])).tool.numpy()
    return Projection(tools, _points(labels[there], system), outlier=CAMERA_SPREAD).matrix.astype(np.float32)


@torch.no_grad()
def thing_offsets(episodes: Episodes, system: System) -> np.ndarray:
    """(K, 3) m: how high each kind of thing is, when it is handled, and where it is beside the place that its key point shows there.

    Of pictures that show the tool, which tells how far their camera is from the projection's; medians, so of things that rest. A kind
    that is hardly ever handled lies on the table.
    """
    found, expert = [np.zeros((0, 4))], system.expert
    for episode, frames in _pictures(episodes):
        assert episode.keypoints is not None
        steps, labels = episode.stride * frames, np.asarray(episode.keypoints[frames], np.float32)
        places = torch.from_numpy(np.stack([to_base(episode.cube[step]) for step in steps]).astype(np.float32))
        tool = expert.projected(expert.kinematics(torch.from_numpy(episode.joints[steps])).tool)[0]
        points = torch.from_numpy(_points(labels, system)).float()
        rows, columns = (side // PLACE for side in system.config.picture_shape)
        handled = which_is_handled(expert.projected(places)[0], tool, torch.from_numpy(labels), rows, columns).numpy()
        points = points - believed_shift(points[:, -1] - tool).unsqueeze(1)
        for i in np.flatnonzero((labels[:, -1, 2] > 0.5) & (handled.sum(1) > 0)):
            kind = int(handled[i].argmax())
            shown = expert.unprojected(points[i : i + 1, kind : kind + 1], places[i : i + 1, 2:])[0, 0]
            found.append(np.array([[kind, *(places[i] - shown)[:2].tolist(), float(places[i, 2])]]))
    every, offsets = np.concatenate(found), np.tile(np.array([0.0, 0.0, TABLE], np.float32), (system.config.keypoints, 1))
    for kind in np.unique(every[:, 0]).astype(int):
        own = every[every[:, 0] == kind, 1:]
        if len(own) >= FEWEST_PICTURES:
            offsets[kind] = np.median(own, axis=0)
    return offsets


def _pictures(episodes: Episodes) -> Iterator[tuple[Episode, np.ndarray]]:
    """Labelled episodes to learn from, and some of their frames."""
    generator = np.random.default_rng(0)
    for episode in (episodes.all[i] for i in episodes.split()[0]):
        if episode.keypoints is not None:
            yield episode, generator.integers(0, len(episode.frames), EACH)


def _points(labels: np.ndarray, system: System) -> np.ndarray:
    """Key points (…, 3) → (…, 2), −1 .. 1 at the picture's outer places."""
    height, width = system.config.picture_shape
    size = np.array([width // PLACE, height // PLACE])
    return 2 * (labels[..., :2] * size - 0.5) / (size - 1) - 1
