"""Where the loop's plans come from, and what becomes of them before the policy sees them: variants for ablations."""

from collections.abc import Callable

import numpy as np

from act2goal_ros.learning.levels import Denoiser
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.msth import frame_offsets
from act2goal_ros.serving.imagination import Imagination, Imagined
from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.branch import expert_future

TRUTH_LEVEL = 0.0  # σ of true frames: no noise at all


class Planner:
    """The imagination's plans as they are: one pass from pure noise."""

    level = 1.0  # σ, the noise level of the features, as the policy is told

    def __init__(self, imagination: Imagination) -> None:
        self.imagination = imagination
        self.config: ModelConfig = imagination.config
        self.replaced = 0  # plans that could not be made as the variant says, and are the imagination's instead

    def begin(self, arm: SimulatedArm, seed: int) -> None:
        """An episode begins on this arm."""
        self.arm, self.seed = arm, seed

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        """From live and goal latents (C, h, w)."""
        return self.imagination.imagine(live, goal, seed)

    def seen(self, mask: np.ndarray) -> np.ndarray:
        """(F,) bool: what the policy sees of the frames that MSTH selected."""
        return mask


class Shuffled(Planner):
    """The features of the imagined frames change places; the policy is told the times of the places."""

    kept = 0  # last frames that stay

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        plan = super().plan(live, goal, seed)
        frames = plan.features.shape[1]
        moved = np.random.default_rng(self.seed).permutation(frames - self.kept)
        order = np.concatenate([moved, np.arange(frames - self.kept, frames)])
        return _with_features(plan, plan.features[:, order])


class ShuffledWay(Shuffled):
    """As Shuffled, but the last frame stays: the goal is where it belongs, the way there is not."""

    kept = 1


class PermutedTimes(Planner):
    """The world model is told other times than the policy: frame k is imagined for another frame's time. The last one stays.

    Unlike Shuffled, nothing of a frame's place is left in its features.
    """

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        order = np.append(_derangement(self.config.frames - 1, self.seed), self.config.frames - 1)
        return self.imagination.imagine(live, goal, seed, order)


class Masked(Planner):
    """The policy sees no imagined frame."""

    def seen(self, mask: np.ndarray) -> np.ndarray:
        return np.zeros_like(mask)


class GoalFrame(Planner):
    """The policy sees the last imagined frame alone."""

    def seen(self, mask: np.ndarray) -> np.ndarray:
        last = np.zeros_like(mask)
        last[-1] = True
        return last


class ImaginedPlaces(Planner):
    """Where things are in the imagined frames is read from the world model's features alone: what the live encoder saw in the live and
    in the goal's picture is withheld, so that the goal reaches the policy through imagination only, and through the time to it, which is
    estimated as ever. Training never withholds that of both pictures of a thing that is there, so what is lost may be of an
    unfamiliar input."""

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        seconds = self.imagination.time_to_goal(live, goal)
        return self.imagination.imagine(_unlocated(live), _unlocated(goal), seed, seconds=seconds)


class FeaturesAlone(Planner):
    """The policy is not told where things are in the imagined frames: what the world model makes of them is all there is."""

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        plan = super().plan(live, goal, seed)
        return _with_features(plan, np.concatenate([plan.features[:-1], np.zeros_like(plan.features[-1:])]))


class PlacesAlone(Planner):
    """The policy is told where things are in each imagined frame, and nothing else of it.

    They are read before its features are taken away: these decide between where the live encoder saw a thing in the live picture,
    where in the goal's, and where they tell themselves it is (model/reader.py).
    """

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        plan = super().plan(live, goal, seed)
        return _with_features(plan, np.concatenate([np.zeros_like(plan.features[:-1]), plan.features[-1:]]))


class Denoised(Planner):
    """Features of the last of N passes that denoise the imagined frames; N = 1 is the plan as it is."""

    def __init__(self, imagination: Imagination, denoiser: Denoiser, steps: int) -> None:
        super().__init__(imagination)
        self._denoiser, self._steps, self.level = denoiser, steps, 1.0 / steps

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int, seconds: float | None = None) -> Imagined:
        offsets, seconds = self.imagination.offsets(live, goal, seconds)
        latents = self.imagination.noise(seed)
        for n in range(self._steps):
            features, velocity = self._denoiser(latents, live, goal, offsets, 1.0 - n / self._steps)
            latents = latents + velocity / self._steps
        return Imagined(offsets * self.config.step, self.config.dense_frames, features, latents, seconds, float("nan"))


class Truth(Planner):
    """The scripted expert's own future frames from this very state, as the world model sees them without noise: an upper bound.

    The true time of arrival as well. Where the expert fails, the plan is the imagination's.
    """

    level = TRUTH_LEVEL

    def __init__(self, imagination: Imagination, denoiser: Denoiser) -> None:
        super().__init__(imagination)
        self._denoiser = denoiser

    def plan(self, live: np.ndarray, goal: np.ndarray, seed: int) -> Imagined:
        c = self.config

        def offsets_to(arrival: int) -> np.ndarray:
            return frame_offsets(arrival, c.vision_stride, c.dense_frames, c.distal_frames, c.spacing)

        future = expert_future(self.arm, offsets_to)
        if future is None:
            self.replaced += 1
            return super().plan(live, goal, seed)
        latents = np.stack([self.imagination.encode(picture) for picture in future.pictures])
        features, _ = self._denoiser(latents, live, goal, offsets_to(future.arrival), TRUTH_LEVEL)
        return Imagined(offsets_to(future.arrival) * c.step, c.dense_frames, features, latents, future.arrival * c.step, float("nan"))


# What becomes of the plan. other_goal: it leads to another task's goal; none: there is none, and nothing moves.
PLANNERS: dict[str, Callable[[Imagination], Planner]] = {
    "normal": Planner,
    "other_goal": Planner,
    "shuffled": Shuffled,
    "shuffled_way": ShuffledWay,
    "permuted_times": PermutedTimes,
    "masked": Masked,
    "goal_frame": GoalFrame,
    "imagined_places": ImaginedPlaces,
    "features_alone": FeaturesAlone,
    "places_alone": PlacesAlone,
    "none": Planner,
}
PLACED = ("imagined_places", "features_alone", "places_alone")
LEVELED = ("denoised", "truth")  # these need networks with the noise level as an input (learning/levels.py)
VARIANTS = (*PLANNERS, *LEVELED)


def make_planner(variant: str, imagination: Imagination, denoiser: Denoiser | None, steps: int) -> Planner:
    """ValueError for an unknown variant, or one that needs a denoiser where there is none."""
    if variant not in VARIANTS:
        raise ValueError(f"variant '{variant}' is not one of {', '.join(VARIANTS)}")
    if variant in PLACED and not imagination.config.located:
        raise ValueError(f"variant '{variant}' needs a model whose plans tell where things are (located), as exports do")
    if variant in PLANNERS:
        return PLANNERS[variant](imagination)
    if denoiser is None:
        raise ValueError(f"variant '{variant}' needs networks with the noise level as an input: `act2goal export --levels`")
    return Denoised(imagination, denoiser, steps) if variant == "denoised" else Truth(imagination, denoiser)


def _unlocated(latent: np.ndarray) -> np.ndarray:
    """A latent (C, h, w) whose last plane, where things are, says that nothing is there."""
    return np.concatenate([latent[:-1], np.zeros_like(latent[-1:])])


def _with_features(plan: Imagined, features: np.ndarray) -> Imagined:
    return Imagined(plan.offsets, plan.dense, np.ascontiguousarray(features), plan.latents, plan.time_to_goal, plan.duration_ms)


def _derangement(count: int, seed: int) -> np.ndarray:
    """A permutation of `count` that leaves none in its place."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(count)
        if (order != np.arange(count)).all():
            return order
