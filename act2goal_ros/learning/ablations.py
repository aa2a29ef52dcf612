"""Ablations: what is compared, on which tasks, and how their episodes are paired. Every variant runs the same resets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from act2goal_ros.learning.evaluate import LoopSettings
from act2goal_ros.learning.jobs import Job, resets
from act2goal_ros.learning.plans import LEVELED
from act2goal_ros.learning.rowlog import Row
from act2goal_ros.learning.statistics import paired_rows, summary
from act2goal_ros.model.msth import SPACINGS
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.sim.tasks import environment_of, official_tasks

HORIZONS = {"short": ("cube-single",), "medium": ("cube-double",), "long": ("cube-triple", "scene")}
REPLAN_EVERY = (1, 2, 4, 8, 16)  # camera frames
DENOISING_STEPS = (2, 4, 8)
PLAN = (
    "right", "other_episode", "shuffled", "shuffled_way", "permuted_times", "goal_frame", "imagined_places", "features_alone",
    "places_alone", "masked", "none", "true_future",
)  # fmt: skip
CALLED = {"right": "normal", "other_episode": "other_goal", "true_future": "truth"}  # in learning/plans.py
MSTH = ("paper", "geometric")  # spacings that are multi-scale temporal hashing; the others are what it is compared with


@dataclass(frozen=True)
class Variant:
    """Something to be compared: a model folder and how the loop runs it."""

    name: str
    model: str
    settings: LoopSettings


def plan_variants(model: str, levels: bool) -> list[Variant]:
    """What of the plan matters; the first is the plan as it is. Without `levels` those that need σ as an input are left out."""
    settings = {name: LoopSettings(variant=CALLED.get(name, name)) for name in PLAN}
    settings |= {f"denoised_{n}": LoopSettings(variant="denoised", denoising_steps=n) for n in DENOISING_STEPS}
    return [Variant(name, model, s) for name, s in settings.items() if levels or s.variant not in LEVELED]


def replan_variants(model: str) -> list[Variant]:
    """A chunk every 1, 2, 4, 8, 16 frames, with and without prefix conditioning; the first is every frame with it."""
    return [
        Variant(f"{every}{suffix}", model, LoopSettings(chunk_every=every, join=join))
        for join, suffix in (("prefix", ""), ("none", "_without_prefix"))
        for every in REPLAN_EVERY
    ]


def msth_variants(models: Mapping[str, str], otherwise: str | None = None) -> list[Variant]:
    """A model trained for each spacing. Where there is none and `otherwise` is given, that model with its frames at other times."""
    unknown = sorted(set(models) - set(SPACINGS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is none of the spacings {', '.join(SPACINGS)}")
    found = {spacing: models.get(spacing, otherwise) for spacing in SPACINGS}
    return [Variant(spacing, model, LoopSettings(spacing=spacing)) for spacing, model in found.items() if model is not None]


def until_success(variants: Sequence[Variant]) -> list[Variant]:
    """The same, their episodes ended at success: in about half the time, but whether they would have ended at rest is not known."""
    return [replace(variant, settings=replace(variant.settings, until_success=True)) for variant in variants]


def jobs_for(variants: Sequence[Variant], environments: Sequence[str], episodes: int, seeds: int, by_model: bool = False) -> list[Job]:
    """Episodes of all variants on the same resets of the official tasks, reset by reset, so that what is done is paired.

    `by_model`: a variant at a time instead, for models of which a process holds only one at a time.
    """
    if len({variant.name for variant in variants}) < len(variants):
        raise ValueError(f"two variants of one name among {', '.join(variant.name for variant in variants)}")
    tasks = [task for environment in environments for task in official_tasks(environment)]
    wanted = resets(tasks, episodes, range(seeds))
    digests = {model: ModelBundle.load(model).hash for model in {v.model for v in variants}}
    jobs = [Job(v.name, v.model, v.settings, task, seed, e, digests[v.model]) for e, task, seed in wanted for v in variants]
    return sorted(jobs, key=lambda job: [v.name for v in variants].index(job.name)) if by_model else jobs


def compare(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """`variants`: a summary of each; `less_than_first`: the first one's success minus each other's, over paired episodes."""
    of = {name: [row for row in rows if row["name"] == name] for name in names}
    first = of[names[0]]
    summaries = {name: summary(of[name]) | _replaced(of[name]) for name in names}
    return {"variants": summaries, "less_than_first": {name: paired_rows(first, of[name]) for name in names[1:]}}


def figures(name: str, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """`compare` of the ablation's variants, and what is asked of it: `every_frame_loss` of replan, `by_horizon` and `long_gain` of msth."""
    found = compare(rows, names)
    if name == "replan":
        found["every_frame_loss"] = every_frame_loss(rows)
    if name == "msth":
        found |= {"by_horizon": by_horizon(rows, names), "long_gain": long_gain(rows)}
    return found


def by_horizon(rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A summary of each variant on each horizon that was run."""
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        for horizon, environments in HORIZONS.items():
            own = [row for row in rows if row["name"] == name and environment_of(row["task"]) in environments]
            if own:
                found[name][horizon] = summary(own)
    return found


def long_gain(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Success on the long horizon: the better MSTH spacing minus the fixed horizon, paired; None where either was not run."""
    far = [row for row in rows if environment_of(row["task"]) in HORIZONS["long"]]
    of = {name: [row for row in far if row["name"] == name] for name in SPACINGS}
    hashed = [name for name in MSTH if of[name]]
    if not hashed or not of["fixed"]:
        return None
    best = max(hashed, key=lambda name: summary(of[name])["success_rate"])
    return {"best": best} | paired_rows(of[best], of["fixed"])


def every_frame_loss(rows: Sequence[Row]) -> dict[str, Any]:
    """Success of the best way to replan minus every frame with prefix, paired; `of`: among how many ways, those with as many episodes."""
    of = {name: [row for row in rows if row["name"] == name] for name in sorted({row["name"] for row in rows})}
    names = [name for name, own in of.items() if len(own) >= len(of["1"])]
    best = max(names, key=lambda name: summary(of[name])["success_rate"])
    return {"best": best, "of": len(names)} | paired_rows(of[best], of["1"])


def _replaced(rows: Sequence[Row]) -> dict[str, int]:
    """How many plans could not be made as the variant says, if any."""
    count = sum(row.get("replaced_plans", 0) for row in rows)
    return {"replaced_plans": count} if count else {}
