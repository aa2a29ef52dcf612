"""The learning system's figures: success, ablations, the world model, speed. Writes docs/results/learning.json, part by part.

A part runs `act2goal eval`, `ablate` or `eval-world`. Episodes are kept, a line each, in docs/results/episodes: what an interval is
made of can be looked up, and an interrupted part goes on, on another machine too. Its figures replace its older ones, the rest
stays. benchmarks/learning_page.py makes docs/results.md of it.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import click
import results
from results import ROOT

from act2goal_ros import paths
from act2goal_ros.cli.eval import UNTIL_SUCCESS
from act2goal_ros.learning import ablations
from act2goal_ros.learning.ablations import HORIZONS, REPLAN_EVERY
from act2goal_ros.serving.bundle import WEIGHTS, ModelBundle
from act2goal_ros.sim.look import UNSEEN
from act2goal_ros.sim.tasks import ENVIRONMENTS

NAME = "learning"
OUTPUTS = ROOT / "outputs" / NAME
EPISODES = results.RESULTS / "episodes"
PARTS = ("tasks", "unseen", "msth", "plan", "replan", "world_model", "baselines", "command", "origin")  # of several entries each
KEYS = (*PARTS[:5], "replan_every_frame_loss", "world_model", "imagination_ms", "tick_ms", "training_hours", "baselines",
        "hardware", "command", "commit", "date")  # fmt: skip
SETTINGS = (*UNSEEN, "region")
ABOUT = ("data", "episodes", "minutes", "threads", "precision", "parameters")  # of a training
model_option = click.option("--model", default="act2goal-tiny", show_default=True)
episodes_option = click.option("--episodes", default=50, show_default=True, help="Resets of each task and seed.")
workers_option = click.option("--workers", default=2, show_default=True)


def store(part: str, values: dict[str, Any], name: str = "", every: dict[str, Any] | None = None) -> None:
    """Merges `values` into a part and `every` into the top, with the command and where and when it ran."""
    found = dict.fromkeys(KEYS) | results.load(NAME)
    for key in PARTS:
        found[key] = found.get(key) or {}
    label = f"{part}.{name}" if name and part in PARTS else part
    if part in PARTS:
        found[part] = kept(found[part], values) | values
    found["command"][label] = results.command(part)[f"command.{part}"]
    found["origin"][label] = results.origin()
    found |= (every or {}) | results.origin()
    results.RESULTS.mkdir(parents=True, exist_ok=True)
    (results.RESULTS / f"{NAME}.json").write_text(json.dumps(found, indent=2) + "\n")
    click.echo(json.dumps(values | (every or {}), indent=2))


def kept(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """An ablation's older entries, those of other weights than `new` is of saying so."""
    of = (old.get("about") or {}).get("model")
    if of is None or of == (new.get("about") or {}).get("model", of):
        return old
    return {name: {"model": of} | entry if name != "about" else entry for name, entry in old.items() if isinstance(entry, dict)}


def act2goal(*arguments: object) -> None:
    """Runs a command of the package."""
    subprocess.run([sys.executable, "-m", "act2goal_ros.cli.main", *map(str, arguments)], check=True, cwd=ROOT)


def evaluated(name: str, *arguments: object) -> dict[str, Any]:
    """What `act2goal eval` found in one environment, with the model's hash."""
    output = OUTPUTS / f"{name}.json"
    act2goal("eval", *arguments, "--no-detector", "--output", output, "--rows", EPISODES / f"{name}.jsonl")
    found = json.loads(output.read_text())
    return dict(found["summary"]) | {"model": found["model_hash"][:12], "criterion": found["criterion"]}


@click.group()
def main() -> None:
    """Measure a part and merge it into docs/results/learning.json."""


@main.command()
@click.option("--env", "environment", default="cube-single", show_default=True, type=click.Choice(ENVIRONMENTS))
@click.option("--look", default="fast", show_default=True, type=click.Choice(["fast", "stock", "randomised"]))
@click.option("--seeds", default=3, show_default=True, help="Evaluation seeds.")
@click.option("--films", type=click.Path(path_type=Path), help="Folder for films.")
@UNTIL_SUCCESS
@model_option
@episodes_option
@workers_option
def tasks(
    environment: str, look: str, seeds: int, films: Path | None, until_success: bool, model: str, episodes: int, workers: int
) -> None:
    """Success on the official tasks of an environment."""
    name = environment.replace("-", "_") + ("" if look == "fast" else f"_{look}_look")
    more = [*(("--films", films) if films else ()), *["--until-success"] * until_success]
    found = evaluated(name, model, "--env", environment, "--look", look, "--episodes", episodes, "--seeds", seeds,
                      "--workers", workers, *more)  # fmt: skip
    store("tasks", {name: found}, name)


@main.command()
@click.argument("setting", type=click.Choice(SETTINGS))
@click.option("--seeds", default=3, show_default=True, help="Evaluation seeds.")
@UNTIL_SUCCESS
@model_option
@episodes_option
@workers_option
def unseen(setting: str, seeds: int, until_success: bool, model: str, episodes: int, workers: int) -> None:
    """Success on cube-single as no training data look. region: beside it, starts and goals anywhere inside the area."""
    common = (model, "--episodes", episodes, "--seeds", seeds, "--workers", workers, *["--until-success"] * until_success)
    found = evaluated(f"unseen_{setting}", *common, "--look", f"unseen:{setting}")
    if setting == "region":
        found["inside"] = evaluated("unseen_region_inside", *common, "--tasks", "random")
    store("unseen", {setting: found}, setting)


@main.command()
@click.argument("name", type=click.Choice(["plan", "replan", "msth"]))
@click.option("--trained", multiple=True, metavar="SPACING=MODEL", help="msth: the model trained for a spacing.")
@click.option("--same-weights", is_flag=True, help="msth: where none was trained, --model with its frames at other times.")
@click.option("--env", "environments", multiple=True, type=click.Choice(ENVIRONMENTS), help="plan: may be given several times.")
@click.option("--variant", "chosen", multiple=True, help="plan, replan: only these; figures of the others are of the rows that they have.")
@UNTIL_SUCCESS
@click.option("--seeds", default=1, show_default=True, help="Evaluation seeds.")
@model_option
@episodes_option
@workers_option
def ablation(
    name: str, trained: tuple[str, ...], same_weights: bool, environments: tuple[str, ...], chosen: tuple[str, ...],
    until_success: bool, seeds: int, model: str, episodes: int, workers: int,
) -> None:  # fmt: skip
    """What of the plan, of replanning, of MSTH matters."""
    if chosen and name == "msth":
        raise click.UsageError("--variant is for plan and replan")
    where = environments or (ENVIRONMENTS if name == "msth" else ("cube-single",))
    output, weights = OUTPUTS / f"{name}.json", weights_of(model)
    more = [*(f"--trained={pair}" for pair in trained), *(f"--env={e}" for e in where)]
    more += ["--same-weights"] * same_weights + ["--until-success"] * until_success + [f"--variant={variant}" for variant in chosen]
    act2goal("ablate", name, "--model", model, "--episodes", episodes, "--seeds", seeds, "--workers", workers, "--output", output,
             "--rows", EPISODES / f"{name}.jsonl", *more)  # fmt: skip
    found = json.loads(output.read_text())
    if chosen:
        found |= of_all_rows(name, found["models"].values())
    values, every = ablation_values(name, found)
    about = {"environments": list(where), "models": {variant: digest[:12] for variant, digest in found["models"].items()}}
    about |= {"model": weights, "criterion": found["criterion"]}
    store(name, values | {"about": about | {"trained": [pair.partition("=")[0] for pair in trained]}}, every=every)


def of_all_rows(name: str, digests: Iterable[str]) -> dict[str, Any]:
    """Figures of all the rows that an ablation has of these models, by whichever command they were measured."""
    lines = (EPISODES / f"{name}.jsonl").read_text().splitlines()[1:]
    rows = [row for row in map(json.loads, lines) if row["model"] in set(digests)]
    variants = ablations.plan_variants("", True) if name == "plan" else ablations.replan_variants("")
    return ablations.figures(name, rows, [v.name for v in variants if any(row["name"] == v.name for row in rows)])


def weights_of(model: str) -> str:
    """The first digits of the hash of a model; the shipped one's where it has its weights, whatever networks were exported of them."""
    import torch  # here, since `speed` measures without it

    from act2goal_ros.learning import released

    bundle = ModelBundle.load(paths.model(model))
    if not (bundle.folder / WEIGHTS).is_file():
        return bundle.hash[:12]
    shipped, own = (released.load(paths.model(name))["average"] for name in ("act2goal-tiny", model))
    same = own.keys() == shipped.keys() and all(torch.equal(own[name], value) for name, value in shipped.items())
    return results.shipped() if same else bundle.hash[:12]


def ablation_values(name: str, found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the part's entries, keys of the top) of what `act2goal ablate` wrote."""
    lost = found["less_than_first"]
    variants = {key: value | ({"less_than_first": lost[key]} if key in lost else {}) for key, value in found["variants"].items()}
    if name == "replan":
        steps = {}
        for n in REPLAN_EVERY:
            free = variants.get(f"{n}_without_prefix")
            if entry := variants.get(str(n), {}) | ({"without_prefix": free} if free else {}):
                steps[str(n)] = entry
        loss = found["every_frame_loss"]
        return steps | {"every_frame_loss": loss}, {"replan_every_frame_loss": loss["difference"]}
    if name == "msth":
        gain = found["long_gain"]
        return found["by_horizon"] | {"long_gain": gain and gain["difference"], "long_gain_paired": gain}, {}
    return variants, {}


@main.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--share", default=0.03, show_default=True, help="The last of the episodes, which training leaves out; 1: all.")
@click.option("--each", default=6, show_default=True, help="Plans of each episode.")
@click.option("--denoising-steps", default=0, show_default=True, help="Also plans denoised in so many steps (export --levels).")
@click.option("--localiser", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Other data to fit the localiser on.")
@model_option
def world(data: Path, share: float, each: int, denoising_steps: int, localiser: Path | None, model: str) -> None:
    """Measures of the world model on held-out episodes."""
    output = OUTPUTS / "world.json"
    more = ("--localiser", localiser) if localiser else ()
    act2goal("eval-world", data, model, "--share", share, "--each", each, "--denoising-steps", denoising_steps, "--output", output, *more)
    found = json.loads(output.read_text())
    picture = ROOT / "docs" / "pictures" / "world-model.png"
    picture.write_bytes(output.with_name("world-one_pass.png").read_bytes())
    store("world_model", found | {"model": found["model_hash"][:12]})


@main.command()
@click.argument("trained", metavar="MODEL", type=click.Path(exists=True, file_okay=False))
@click.option("--about", type=click.File(), required=True, help=f"JSON of how it was trained: {', '.join(ABOUT)}.")
@click.option("--env", "environment", default="cube-single", show_default=True, type=click.Choice(ENVIRONMENTS))
@click.option("--seeds", default=3, show_default=True, help="Evaluation seeds.")
@episodes_option
@workers_option
def baseline(trained: str, about: TextIO, environment: str, seeds: int, episodes: int, workers: int) -> None:
    """Success of this project's policy beside the baselines: trained on their data, for their time. Theirs: benchmarks/cloning."""
    told = json.load(about)
    if missing := [key for key in ABOUT if key not in told]:
        raise click.UsageError(f"--about {about.name} lacks {', '.join(missing)}")
    found = evaluated("baseline_act2goal", trained, "--env", environment, "--episodes", episodes, "--seeds", seeds, "--workers", workers)
    store("baselines", {"act2goal": found | {"environment": environment, "about": told}}, "act2goal")


@main.command()
@click.option("--runs", default=2000, show_default=True, help="Ticks.")
@click.option("--core", default=0, show_default=True)
@model_option
def speed(runs: int, core: int, model: str) -> None:
    """One imagination and one tick, on one core, in ONNX Runtime."""
    from speed import tick

    store("speed", {}, every=tick(runs, core, model))


@main.command()
@click.option("--hours", required=True, type=click.FloatRange(0, min_open=True), help="From nothing to the weights, as the manifest says.")
def training(hours: float) -> None:
    """How long training took."""
    store("training_hours", {}, every={"training_hours": hours})


@main.command()
def status() -> None:
    """What is measured and what is not."""
    found = results.load(NAME)
    for key in KEYS:
        value = found.get(key)
        inner = ", ".join(value) if isinstance(value, dict) and key in PARTS else ""
        click.echo(f"{key:>24}  {'not measured' if not value and value != 0 else inner or value}")
    missing = [h for h in HORIZONS if not any(h in v for v in (found.get("msth") or {}).values() if isinstance(v, dict))]
    click.echo(f"{'msth not measured for':>24}  {', '.join(missing) or 'nothing'}")


if __name__ == "__main__":
    main()
