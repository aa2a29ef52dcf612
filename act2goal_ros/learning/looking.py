"""The live encoder learns where things are, from labelled pictures alone: minutes that save hours of the trainings that follow."""

from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from act2goal_ros.learning.augment import relight
from act2goal_ros.learning.batches import Episodes, to_tensor
from act2goal_ros.learning.checkpoint import load, load_weights, save
from act2goal_ros.learning.fit import Cadence, Job, fit
from act2goal_ros.learning.keypoints import live_loss
from act2goal_ros.learning.pictures import marked
from act2goal_ros.learning.schedule import Schedule, seeded
from act2goal_ros.learning.system import PLACE
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.live import LiveEncoder

NAME = "looking"
HELD_OUT_SEED, HELD_OUT_PICTURES, SHOWN = 1, 256, 8


class Looking(nn.Module):
    """The live encoder, to be trained on pictures and their key points alone."""

    def __init__(self, config: ModelConfig, live: LiveEncoder) -> None:
        super().__init__()
        self.config, self.live = config, live

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """`seen`, and for people `pixels`, the mean distance of the key points from where they are; each a scalar."""
        pictures, keypoints = batch
        found = self.live(relight(pictures) if self.training else pictures)
        rows = self.config.picture_shape[0] // PLACE
        return {"seen": live_loss(found, keypoints, self.live.grid, rows), "pixels": self.distance(found.points, keypoints).detach()}

    def distance(self, points: Tensor, keypoints: Tensor) -> Tensor:
        """Pixels, mean over the key points that are in the picture."""
        height, width = self.config.picture_shape
        size = torch.tensor([width, height], device=points.device)
        away = (self.pixels(points)[:, : keypoints.shape[1]] - keypoints[..., :2] * size).norm(dim=-1)
        seen = (keypoints[..., 2] > 0.5) & away.isfinite()
        return torch.where(seen, away, 0.0).sum() / seen.sum().clamp(min=1)

    def pixels(self, points: Tensor) -> Tensor:
        """(B, 2 · POINTS) in −1 .. 1 → (B, POINTS, 2) pixels."""
        height, width = self.config.picture_shape
        places = torch.tensor([width // PLACE, height // PLACE], device=points.device)
        return PLACE * ((points.unflatten(1, (-1, 2)) + 1) / 2 * (places - 1) + 0.5)


def labelled(episodes: Episodes, among: list[int]) -> list[int]:
    """Those that have key points."""
    return [i for i in among if episodes.all[i].keypoints is not None]


def is_labelled(episodes: Episodes) -> bool:
    """Whether any episode has key points."""
    return bool(labelled(episodes, list(range(len(episodes.all)))))


def train_looking(
    episodes: Episodes, config: ModelConfig, live: LiveEncoder, folder: Path, schedule: Schedule, fabric: Fabric, cadence: Cadence
) -> None:
    """Trains `live` and writes folder/looking.pt; until it is there, folder/looking-training.pt is a checkpoint it resumes from."""
    among, held_out = (labelled(episodes, part) for part in episodes.split())
    held_out = held_out or among
    model = Looking(config, live)

    def draw(generator: np.random.Generator, count: int, chosen: list[int] = among) -> tuple[Tensor, Tensor]:
        picked = [episodes.all[i] for i in generator.choice(chosen, count)]
        rows = [int(generator.integers(len(episode.frames))) for episode in picked]
        pictures = np.stack([episode.frames[row] for episode, row in zip(picked, rows, strict=True)])
        labels = np.stack([episode.keypoints[row] for episode, row in zip(picked, rows, strict=True) if episode.keypoints is not None])
        return to_tensor(pictures), torch.from_numpy(labels.astype(np.float32))

    def check() -> tuple[dict[str, float], np.ndarray]:
        pictures, keypoints = fabric.to_device(draw(seeded(HELD_OUT_SEED, 0, 0), HELD_OUT_PICTURES, held_out))
        model.eval()
        with torch.no_grad():
            found = {name: value.item() for name, value in model.losses((pictures, keypoints)).items()}
            places = model.pixels(model.live(pictures[:SHOWN]).points)[:, : config.keypoints]
        model.train()
        return found, marked(pictures[:SHOWN], places, keypoints[:SHOWN, :, 2] > 0.5)

    weights = {"seen": 1.0, "pixels": 0.0}
    groups = [{"params": list(live.parameters()), "weight_decay": 1e-3}]
    job = Job(name=f"{NAME}-training", module=model, batch=draw, weights=weights, groups=groups, check=check)
    steps = fit(job, schedule, folder, fabric, cadence)
    if fabric.is_global_zero:
        save(folder / f"{NAME}.pt", {"model": live.state_dict(), "steps": steps, "config": config.to_dict()})
    fabric.barrier()


def take_over(live: LiveEncoder, folder: Path) -> bool:
    """Gives `live` the weights of folder/looking.pt; False if there is none."""
    path = folder / f"{NAME}.pt"
    if not path.exists():
        return False
    state = load(path, "model")
    load_weights(live, state["model"], None, path)
    return True
