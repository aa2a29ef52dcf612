"""Training: the autoencoder first, then world model and action expert together (stage 1), then the actions alone (stage 2)."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from act2goal_ros.learning.batches import Episodes, Sampler, action_scales, to_tensor
from act2goal_ros.learning.system import System, load, save
from act2goal_ros.model.autoencoder import Autoencoder
from act2goal_ros.model.config import ModelConfig

CHECKPOINT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast. Time counts first: the same command fits machines of different speed; `steps` bounds it too."""

    minutes: float
    steps: int = 10**9
    learning_rate: float = 8e-4
    batch: int = 16
    warm_up: float = 0.02
    ema: float = 0.999
    seed: int = 0

    def rate(self, progress: float) -> float:
        """Warm-up, then a cosine to a fiftieth."""
        rise = min(1.0, progress / self.warm_up)
        return self.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


class Average:
    """Exponential moving average of a module's parameters, with a warm-up."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay, self._count = decay, 0
        self.values = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.values[name].lerp_(value, 1 - decay)


def halve(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """(N, 3, H, W) averaged down to (N, 3, size, size)."""
    return nn.functional.avg_pool2d(pictures, pictures.shape[-1] // size)


def train_autoencoder(episodes: Episodes, config: ModelConfig, folder: Path, schedule: Schedule) -> Autoencoder:
    """Writes folder/autoencoder.pt. What differs from the mean picture weighs more: the arm and the cube are small."""
    torch.manual_seed(schedule.seed)
    generator = np.random.default_rng(schedule.seed)
    model, among = Autoencoder(config), episodes.split()[0]
    average, optimizer = Average(model, 0.995), torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=1e-4)
    mean = halve(episodes.random_frames(generator, 512, among), config.image_size).mean(0, keepdim=True)
    started, steps = time.monotonic(), 0
    with tqdm(total=round(schedule.minutes * 60), unit="s", desc="autoencoder") as bar:
        while (elapsed := time.monotonic() - started) < schedule.minutes * 60:
            pictures = halve(episodes.random_frames(generator, schedule.batch, among), config.image_size)
            weight = 1 + 10 * (pictures - mean).abs().amax(1, keepdim=True)
            error = (model(pictures, noise=0.05) - pictures).square()
            loss = (weight * error).mean() + 1e-4 * model.encoder(pictures - 0.5).square().mean()
            _step(optimizer, model, loss, schedule.rate(elapsed / 60 / schedule.minutes))
            average.update(model)
            steps += 1
            if steps in (100, 1000):
                model.normalise(halve(episodes.random_frames(generator, 256, among), config.image_size))
            bar.n = round(elapsed)
            bar.set_postfix(step=steps, psnr=f"{-10 * math.log10(error.mean().item()):.1f}")
    model.load_state_dict(average.values)
    model.normalise(halve(episodes.random_frames(generator, 1024, among), config.image_size))
    save(folder / "autoencoder.pt", {"model": model.state_dict(), "steps": steps})
    return model.eval()


@torch.no_grad()
def encode_all(episodes: Episodes, autoencoder: Autoencoder, config: ModelConfig, key: str) -> None:
    """Latents of all frames, kept beside each shard for the autoencoder named by `key`."""
    for shard, group in zip(tqdm(episodes.shards, desc="latents", unit="shard"), episodes.by_shard, strict=True):
        path = shard / f"latents-{key}.npy"
        if not path.exists() or len(np.load(path, mmap_mode="r", allow_pickle=False)) != sum(len(e.frames) for e in group):
            frames = np.concatenate([episode.frames for episode in group])
            parts = [autoencoder.encode(halve(to_tensor(frames[i : i + 256]), config.image_size)) for i in range(0, len(frames), 256)]
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, torch.cat(parts).numpy().astype(np.float16))
            temporary.replace(path)
        latents, start = np.load(path, mmap_mode="r", allow_pickle=False), 0
        for episode in group:
            episodes.latents.append(latents[start : start + len(episode.frames)])
            start += len(episode.frames)


def train_system(
    episodes: Episodes, system: System, folder: Path, schedule: Schedule, weights: dict[str, float], name: str
) -> System:
    """Trains world model, temporal distance and expert together; folder/<name>.pt is a checkpoint it resumes from."""
    config, (among, held_out) = system.config, episodes.split()
    optimizer = torch.optim.AdamW(_groups(system), lr=schedule.learning_rate, betas=(0.9, 0.98))
    average, path = Average(system, schedule.ema), folder / f"{name}.pt"
    before, steps = 0.0, 0
    if path.exists():
        state = load(path)
        system.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, average._count = state["average"], state["steps"]
        before, steps = state["elapsed"], state["steps"]
    torch.manual_seed(schedule.seed + steps)
    sampler = Sampler(episodes, among, config, schedule.seed + steps)
    check = Sampler(episodes, held_out, config, 1)
    started, saved = time.monotonic(), time.monotonic()
    log = (folder / f"{name}.csv").open("a")

    def checkpoint(elapsed: float) -> None:
        save(path, {"model": system.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values,
                    "elapsed": elapsed, "steps": steps, "config": config.to_dict()})

    with tqdm(total=round(schedule.minutes * 60), unit="s", desc=name) as bar:
        while (elapsed := before + time.monotonic() - started) < schedule.minutes * 60 and steps < schedule.steps:
            losses = system.losses(sampler.batch(schedule.batch))
            total = torch.stack([weights[key] * value for key, value in losses.items()]).sum()
            _step(optimizer, system, total, schedule.rate(elapsed / 60 / schedule.minutes))
            average.update(system)
            steps += 1
            bar.n = round(elapsed)
            if steps % 20 == 0:
                values = {key: value.item() for key, value in losses.items()}
                print(steps, round(elapsed), *(f"{value:.4f}" for value in values.values()), sep=",", file=log, flush=True)
                bar.set_postfix({"step": steps} | {key: f"{value:.3f}" for key, value in values.items()})
            if time.monotonic() - saved > CHECKPOINT_S:
                checkpoint(elapsed)
                saved = time.monotonic()
    checkpoint(before + time.monotonic() - started)
    log.close()
    system.load_state_dict(average.values)
    print(f"{name}: {steps} steps; held out:", held_out_losses(system, check))
    return system.eval()


@torch.no_grad()
def held_out_losses(system: System, sampler: Sampler, batches: int = 8) -> dict[str, float]:
    """Mean losses over held-out episodes."""
    system.eval()
    rows = [system.losses(sampler.batch(16)) for _ in range(batches)]
    system.train()
    return {key: round(float(np.mean([row[key].item() for row in rows])), 4) for key in rows[0]}


def prepare(system: System, episodes: Episodes) -> None:
    """Sets the action scales from the data."""
    scale, velocity = action_scales(episodes, episodes.split()[0], system.config)
    system.expert.action_scale.copy_(torch.from_numpy(scale))
    system.expert.velocity_scale.copy_(torch.from_numpy(velocity))


def sample_pictures(system: System, episodes: Episodes, path: Path, seed: int = 3) -> None:
    """A picture of held-out plans: current, imagined frames (one pass) above the true ones, goal."""
    sampler = Sampler(episodes, episodes.split()[1], system.config, seed)
    batch = system.encoded(sampler.batch(4))
    with torch.no_grad():
        noise = torch.randn_like(batch.future)
        velocity, _ = system.world(noise, batch.current, batch.goal, batch.offsets, torch.ones(4))
        imagined = noise + velocity
        rows = []
        for i in range(4):
            first, last = system.autoencoder.decode(torch.stack([batch.current[i], batch.goal[i]])).split(1)
            for frames in (imagined[i], batch.future[i]):
                pictures = torch.cat([first, system.decoded(frames), last]).clamp(0, 1)
                rows.append(np.hstack([*(pictures.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)]))
    cv2.imwrite(str(path), cv2.resize(np.vstack(rows)[..., ::-1], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))


def _groups(system: System) -> list[dict[str, object]]:
    """Weight decay for matrices only; the autoencoder stays as it is."""
    chosen = [(n, p) for n, p in system.named_parameters() if not n.startswith("autoencoder.")]
    matrices = [p for n, p in chosen if p.ndim >= 2 and "position" not in n]
    others = [p for n, p in chosen if not (p.ndim >= 2 and "position" not in n)]
    return [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]


def _step(optimizer: torch.optim.Optimizer, module: nn.Module, loss: torch.Tensor, rate: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
