"""How well the world model imagines: on recorded episodes, by how far ahead. No torch: as it is served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from act2goal_ros.learning.checks import last_of_each, load_episodes
from act2goal_ros.learning.dataset import Episode
from act2goal_ros.learning.localiser import Projection, centroid, errors
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.serving.imagination import Imagination, Imagined

HORIZONS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, np.inf))  # s ahead
STILL, HOLD_STEPS = 0.03, 16  # as in training: rad, steps
MOVED = 0.1  # change of a pixel since the live frame, of 1, from which it counts as moved
LEAST_MOVED = 20  # pixels
ENLARGED, CAPTION = 2, 18  # times a picture is shown; pixels of a caption's height
PROJECTED = 32  # dimensions the latents are projected to, at random, for the Fréchet distance
CUBE = "cube-single"  # the environment whose cube the localiser knows

MakePlan = Callable[[np.ndarray, np.ndarray, int, float], Imagined]  # live, goal, seed, seconds to the goal


@dataclass(frozen=True)
class Frame:
    """An imagined frame beside the true one; pictures (s, s, 3) uint8, latents (C, h, w), `place` (3,) m of the object handled."""

    environment: str
    ahead: float  # s
    imagined: np.ndarray
    true: np.ndarray
    rebuilt: np.ndarray  # the true one through the autoencoder
    live: np.ndarray
    imagined_latent: np.ndarray
    true_latent: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class Plan:
    """Frames of one plan, the goal's picture, and the time to it: estimated and true, s."""

    frames: list[Frame]
    goal: np.ndarray
    estimated: float
    arrival: float


def held_out(folder: Path, share: float, config: ModelConfig) -> tuple[list[Episode], list[Episode]]:
    """The other usable episodes of a data set, and the last `share` of each environment's, as training leaves them out (batches.py).

    DatasetError where there are none.
    """
    found = [episode for shard in load_episodes(folder, config).by_shard for episode in shard]
    kept = last_of_each([episode.environment for episode in found], share)
    return [e for i, e in enumerate(found) if i not in kept], [found[i] for i in sorted(kept)]


def plans(imagination: Imagination, make: MakePlan, episodes: Sequence[Episode], each: int, step: float) -> list[Plan]:
    """`each` plans of every episode, evenly spread from its start to the arrival, told the true time to goal."""
    made = []
    for number, episode in enumerate(episodes):
        away = np.flatnonzero(np.abs(episode.joints - episode.joints[-1]).max(1) > STILL)
        arrived = min(int(away[-1]) + 1 if len(away) else 0, len(episode) - HOLD_STEPS)
        for start in np.unique(np.linspace(0, max(arrived - 1, 0), each).astype(int) // episode.stride * episode.stride):
            made.append(_plan(imagination, make, episode, int(start), arrived, 1000 * number + int(start), step))
    return made


def _plan(imagination: Imagination, make: MakePlan, episode: Episode, start: int, arrived: int, seed: int, step: float) -> Plan:
    size, last = imagination.config.image_size, len(episode) - 1
    pictures = {now: _small(episode.frames[now // episode.stride], size) for now in (start, last)}
    live, goal = (imagination.encode(episode.frames[now // episode.stride]) for now in (start, last))
    seconds = max(arrived - start, 0) * step
    plan = make(live, goal, seed, seconds)
    steps = np.minimum(start + np.round(plan.offsets / step), last).astype(int)
    true = [_small(episode.frames[now // episode.stride], size) for now in steps]
    true_latents = np.stack([imagination.encode(episode.frames[now // episode.stride]) for now in steps])
    imagined, rebuilt = imagination.decode(plan.latents), imagination.decode(true_latents)
    frames = [
        Frame(episode.environment, float(plan.offsets[k]), imagined[k], true[k], rebuilt[k], pictures[start], plan.latents[k],
              true_latents[k], np.asarray(episode.cube[now]))
        for k, now in enumerate(steps)
    ]  # fmt: skip
    return Plan(frames, pictures[last], imagination.time_to_goal(live, goal), seconds)


def fit_localiser(episodes: Sequence[Episode], size: int, pictures: int = 1500) -> Projection | None:
    """From true pictures of single cubes; None where there are too few."""
    own = [episode for episode in episodes if episode.environment == CUBE]
    if not own:
        return None
    generator = np.random.default_rng(0)
    places, pixels = [], []
    for index in generator.integers(0, len(own), pictures):
        frame = int(generator.integers(len(own[index].frames)))
        pixel = centroid(_small(own[index].frames[frame], size))
        if pixel is not None:
            places.append(own[index].cube[min(frame * own[index].stride, len(own[index]) - 1)])
            pixels.append(pixel)
    return Projection(np.array(places, float), np.array(pixels)) if len(places) >= 20 else None


def measure(made: Sequence[Plan], localiser: Projection | None) -> dict[str, Any]:
    """All measures by horizon (keys such as `0.5-1s`), and over all frames (`all`)."""
    frames = [frame for plan in made for frame in plan.frames]
    project = np.random.default_rng(0).standard_normal((frames[0].true_latent.size, PROJECTED)) / np.sqrt(frames[0].true_latent.size)
    groups = {_name(low, high): [frame for frame in frames if low < frame.ahead <= high] for low, high in HORIZONS}
    found = {name: _of(group, project, localiser) for name, group in (groups | {"all": frames}).items() if group}
    return {"by_horizon": found, "temporal_distance": temporal_distance(made), "plans": len(made)}


def _of(frames: Sequence[Frame], project: np.ndarray, localiser: Projection | None) -> dict[str, Any]:
    values: dict[str, Any] = {"frames": len(frames)}
    for name in ("imagined", "rebuilt", "live"):
        values[f"psnr_{name}"] = float(np.mean([psnr(getattr(frame, name), frame.true) for frame in frames]))
        moved = [value for frame in frames if (value := psnr_moved(getattr(frame, name), frame)) is not None]
        values[f"psnr_moved_{name}"] = float(np.mean(moved)) if moved else None
    true, imagined = (np.stack([getattr(f, f"{name}_latent").ravel() for f in frames]) @ project for name in ("true", "imagined"))
    values["frechet"] = frechet(imagined, true) if len(frames) > 2 * PROJECTED else None
    values["frechet_floor"] = frechet(true[::2], true[1::2]) if len(frames) > 4 * PROJECTED else None
    own = [frame for frame in frames if frame.environment == CUBE]
    if localiser is not None and own:
        for name in ("imagined", "true"):
            values[f"cube_mm_{name}"] = _spread(errors(localiser, [getattr(f, name) for f in own], np.stack([f.place for f in own])))
    return values


def temporal_distance(made: Sequence[Plan]) -> dict[str, dict[str, float]]:
    """Error of the estimated time to goal by the true one: median absolute error and median error, s."""
    found = {}
    for low, high in (*HORIZONS, (-1.0, np.inf)):
        difference = np.array([plan.estimated - plan.arrival for plan in made if low < plan.arrival <= high])
        if len(difference):
            name = "all" if low < 0 else _name(low, high)
            found[name] = {"absolute": float(np.median(np.abs(difference))), "bias": float(np.median(difference)), "plans": len(difference)}
    return found


def psnr(picture: np.ndarray, true: np.ndarray) -> float:
    """dB, of uint8 pictures; 60 at most."""
    return _decibel(np.square(picture.astype(float) - true).mean())


def psnr_moved(picture: np.ndarray, frame: Frame) -> float | None:
    """dB, of the pixels that differ from the live frame, in truth; None where too few do."""
    moved = np.abs(frame.true.astype(float) - frame.live).max(2) > 255 * MOVED
    return _decibel(np.square(picture[moved].astype(float) - frame.true[moved]).mean()) if moved.sum() >= LEAST_MOVED else None


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance (squared) between normal distributions fitted to rows (N, D) and (M, D)."""
    means, covariances = zip(*((rows.mean(0), np.cov(rows, rowvar=False)) for rows in (first, second)), strict=True)
    root = _root(covariances[0])
    cross = np.trace(_root(root @ covariances[1] @ root))
    return float(np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1]) - 2 * cross)


def pictures(made: Sequence[Plan], count: int = 6) -> np.ndarray:
    """(H, W, 3) RGB: of some plans a row live | imagined | goal, and below it live | true | goal, with captions."""
    rows = []
    for plan in [made[i] for i in np.linspace(0, len(made) - 1, min(count, len(made))).astype(int)]:
        times = [f"{frame.ahead:+.1f} s" for frame in plan.frames]
        for first, name in (("live; imagined:", "imagined"), ("live; what came:", "true")):
            row = np.hstack([plan.frames[0].live, *(getattr(frame, name) for frame in plan.frames), plan.goal])
            rows += [_captions([first, *times, "goal"], ENLARGED * len(plan.goal)),
                     cv2.resize(row, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)]  # fmt: skip
    return np.vstack(rows)


def _captions(texts: Sequence[str], width: int) -> np.ndarray:
    """(CAPTION, width · N, 3): each at the left of its part."""
    strip = np.full((CAPTION, width * len(texts), 3), 255, np.uint8)
    for number, text in enumerate(texts):
        cv2.putText(strip, text, (width * number + 4, CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def _small(picture: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def _name(low: float, high: float) -> str:
    return f"{low:g}-{high:g}s" if np.isfinite(high) else f"{low:g}s-"


def _decibel(error: float) -> float:
    return float(min(-10 * np.log10(max(error, 1e-12) / 255**2), 60.0))


def _root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _spread(values: np.ndarray) -> dict[str, float | None]:
    """mm, of those that were found; and how many were."""
    seen = values[np.isfinite(values)]
    p50, p90 = (float(value) for value in np.percentile(seen, [50, 90])) if len(seen) else (None, None)
    return {"p50": p50, "p90": p90, "found": len(seen) / len(values)}
