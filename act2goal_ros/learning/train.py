"""Training: the autoencoder first, then world model and action expert together (stage 1), then the actions alone (stage 2)."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from act2goal_ros.learning import camera
from act2goal_ros.learning.acting import LOSSES as TOLD_LOSSES
from act2goal_ros.learning.acting import Acting, is_learnt, show_nothing
from act2goal_ros.learning.batches import Batch, Episodes, Sampler, action_scales, to_tensor
from act2goal_ros.learning.checkpoint import save, write
from act2goal_ros.learning.devices import made_on, make_fabric
from act2goal_ros.learning.fit import Cadence, Job, fit
from act2goal_ros.learning.looking import labelled
from act2goal_ros.learning.pictures import imagined_over_true, in_a_row
from act2goal_ros.learning.schedule import Schedule, seeded
from act2goal_ros.learning.system import System
from act2goal_ros.model.autoencoder import Autoencoder
from act2goal_ros.model.config import ModelConfig

HELD_OUT_SEED, HELD_OUT_PLANS, HELD_OUT_BATCHES, SHOWN_PLANS = 1, 16, 8, 4
TOLD_SHARE = 3  # plans without pictures for each one with, where there are any
NORMALISED_AFTER = (100, 1000)  # steps


class Reconstruction(nn.Module):
    """The autoencoder and its losses. What differs from the mean picture weighs more: the arm and the cube are small."""

    mean: Tensor

    def __init__(self, config: ModelConfig, mean: Tensor) -> None:
        super().__init__()
        self.config, self.autoencoder = config, Autoencoder(config)
        self.register_buffer("mean", mean)

    def losses(self, pictures: Tensor) -> dict[str, Tensor]:
        """`picture`, `latent` (keeps latents small) and, for people, `error` (mean square); each a scalar."""
        weight = 1 + 10 * (pictures - self.mean).abs().amax(1, keepdim=True)
        error = (self.autoencoder(pictures, noise=0.05) - pictures).square()
        return {
            "picture": (weight * error).mean(),
            "latent": self.autoencoder.raw(pictures).square().mean(),
            "error": error.mean().detach(),
        }


def halve(pictures: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) averaged down to (N, 3, size, size)."""
    return nn.functional.avg_pool2d(pictures, pictures.shape[-1] // size)


def train_autoencoder(
    episodes: Episodes,
    config: ModelConfig,
    folder: Path,
    schedule: Schedule,
    fabric: Fabric | None = None,
    cadence: Cadence | None = None,
) -> Autoencoder:
    """Writes folder/autoencoder.pt; until it is there, folder/autoencoder-training.pt is a checkpoint it resumes from."""
    fabric, (among, held_out) = fabric or make_fabric(), episodes.split()

    def draw(generator: np.random.Generator, count: int, chosen: list[int] = among) -> Tensor:
        return halve(episodes.random_frames(generator, count, chosen), config.image_size)

    def normalise(count: int) -> None:
        pictures = draw(np.random.default_rng((schedule.seed, count)), count)
        model.autoencoder.normalise(pictures.to(fabric.device))

    def check() -> tuple[dict[str, float], np.ndarray]:
        pictures = draw(np.random.default_rng(HELD_OUT_SEED), 64, held_out).to(fabric.device)
        with torch.no_grad():
            found = model.autoencoder(pictures)
        error = float((found - pictures).square().mean())
        return {"error": error, "psnr": -10 * float(np.log10(error))}, np.vstack([in_a_row(found[:8]), in_a_row(pictures[:8])])

    model = Reconstruction(config, draw(seeded(schedule.seed, 0, 0), 512).mean(0, keepdim=True))
    job = Job(
        name="autoencoder-training",
        module=model,
        batch=draw,
        weights={"picture": 1.0, "latent": 1e-4, "error": 0.0},
        groups=[{"params": list(model.parameters()), "weight_decay": 1e-4}],
        check=check,
        after=lambda step: normalise(256) if step in NORMALISED_AFTER else None,
    )
    steps = fit(job, replace(schedule, ema=0.995), folder, fabric, cadence)
    normalise(1024)
    if fabric.is_global_zero:
        save(folder / "autoencoder.pt", {"model": model.autoencoder.state_dict(), "steps": steps, "config": config.to_dict()})
    fabric.barrier()
    return model.autoencoder.eval()


def fingerprint(module: nn.Module) -> str:
    """12 hexadecimal digits that tell these weights from others."""
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def encode_all(
    episodes: Episodes, autoencoder: Autoencoder, config: ModelConfig, key: str | None = None, fabric: Fabric | None = None
) -> None:
    """Latents of all frames, kept beside each shard under `key`, by default the autoencoder's fingerprint. Processes share the shards."""
    fabric, key = fabric or make_fabric(), key or fingerprint(autoencoder)
    autoencoder.to(fabric.device)
    files = [shard / f"latents-{key}.npy" for shard in episodes.shards]
    mine = slice(fabric.global_rank, None, fabric.world_size)
    for path, group in zip(tqdm(files[mine], desc="latents", unit="shard"), episodes.by_shard[mine], strict=True):
        if not path.exists() or len(np.load(path, mmap_mode="r", allow_pickle=False)) != sum(len(e.frames) for e in group):
            frames = np.concatenate([episode.frames for episode in group])
            pictures = (halve(to_tensor(frames[i : i + 256]), config.image_size) for i in range(0, len(frames), 256))
            parts = [autoencoder.encode(part.to(fabric.device)).cpu() for part in pictures]
            found = torch.cat(parts).numpy().astype(np.float16)
            write(path, found.nbytes, lambda file, found=found: np.save(file, found))  # type: ignore[misc]
    fabric.barrier()
    for path, group in zip(files, episodes.by_shard, strict=True):
        latents, start = np.load(path, mmap_mode="r", allow_pickle=False), 0
        for episode in group:
            episodes.latents.append(latents[start : start + len(episode.frames)])
            start += len(episode.frames)


def train_system(
    episodes: Episodes,
    system: System,
    folder: Path,
    schedule: Schedule,
    weights: dict[str, float],
    name: str,
    fabric: Fabric | None = None,
    cadence: Cadence | None = None,
    expert_share: float = 1.0,
    told: Episodes | None = None,
) -> System:
    """Trains world model, temporal distance and expert together; folder/<name>.pt is a checkpoint it resumes from. What the expert
    knows already (learning/acting.py) is learnt at a share of the learning rate; from `told`, episodes without pictures, it goes on
    to learn as it did there."""
    fabric, (among, held_out) = fabric or make_fabric(), episodes.split()
    sampler, checked = (Sampler(episodes, part, system.config, 0) for part in (among, held_out))
    if "video" in weights:  # a student has chosen itself what it learns
        for parameter_name, parameter in system.named_parameters():
            parameter.requires_grad_(_is_learnt(parameter_name, weights))

    def check() -> tuple[dict[str, float], np.ndarray]:
        losses = held_out_losses(system, checked, fabric)
        batch = fabric.to_device(checked.batch(SHOWN_PLANS, seeded(HELD_OUT_SEED, HELD_OUT_BATCHES, 0)))
        return losses, imagined_over_true(system, batch)

    beside = None
    if told is not None:
        show_nothing(told)
        beside, system.told = Sampler(told, labelled(told, told.split()[0]), system.config, 0), Acting(system).losses
        weights = weights | {f"told_{loss}": weights[loss] for loss in TOLD_LOSSES}

    def draw(generator: np.random.Generator, plans: int) -> Batch | tuple[Batch, Batch]:
        batch = sampler.batch(plans, generator)
        return batch if beside is None else (batch, beside.batch(TOLD_SHARE * plans, generator))

    job = Job(name=name, module=system, batch=draw, weights=weights,
              groups=_groups(system, expert_share), check=check)  # fmt: skip
    fit(job, schedule, folder, fabric, cadence)
    return system.eval()


@torch.no_grad()
def held_out_losses(system: System, sampler: Sampler, fabric: Fabric) -> dict[str, float]:
    """Mean losses over held-out episodes: the same plans, live frames and noise each time."""
    system.eval()
    rows = []
    for i in range(HELD_OUT_BATCHES):
        batch: Batch = fabric.to_device(sampler.batch(HELD_OUT_PLANS, seeded(HELD_OUT_SEED, i, 0)))
        with made_on(fabric.device):
            rows.append(system.losses(batch))
    system.train()
    return {key: float(np.mean([row[key].item() for row in rows])) for key in rows[0]}


def prepare(system: System, episodes: Episodes) -> None:
    """Sets what follows from the data alone: the action scales and, with key points, where the camera shows the tool and things."""
    scale, velocity = action_scales(episodes, episodes.split()[0], system.config)
    system.expert.action_scale.copy_(torch.from_numpy(scale))
    system.expert.velocity_scale.copy_(torch.from_numpy(velocity))
    system.expert.projection.copy_(torch.from_numpy(camera.tool_projection(episodes, system)))
    system.expert.spotter.thing_offsets.copy_(torch.from_numpy(camera.thing_offsets(episodes, system)))


def _groups(system: System, expert_share: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only; the autoencoder stays as it is; the expert has its share of the learning rate."""
    groups = []
    for expert, share in ((False, 1.0), (True, expert_share)):
        chosen = [(n, p) for n, p in system.named_parameters() if not n.startswith("autoencoder.") and is_learnt(n) == expert]
        matrices = [p for n, p in chosen if p.ndim >= 2 and "position" not in n]
        others = [p for n, p in chosen if not (p.ndim >= 2 and "position" not in n)]
        shared = {"betas": (0.9, 0.98), "share": share}
        groups += [{"params": matrices, "weight_decay": 0.02} | shared, {"params": others, "weight_decay": 0.0} | shared]
    return groups


def _is_learnt(name: str, weights: dict[str, float]) -> bool:
    """Whether a stage with these weights of the losses trains a weight: the autoencoder never, the expert where actions count, and what
    makes velocities of features where these count."""
    if name.startswith("expert.") and not name.startswith("expert.reader."):
        return weights["action"] > 0
    return not name.startswith(("autoencoder.", *(() if weights["video"] > 0 else ("world.norm.", "world.head."))))
