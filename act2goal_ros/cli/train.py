"""`act2goal train`: trains the models on recorded episodes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from act2goal_ros.model.msth import SPACINGS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from act2goal_ros.learning.batches import Episodes
    from act2goal_ros.learning.fit import Cadence
    from act2goal_ros.learning.schedule import Schedule
    from act2goal_ros.learning.system import System

Number = TypeVar("Number", int, float)
PARTS = ("acting", "autoencoder", "looking", "world", "stage1", "stage2", "distilled", "distance")
RATES = {
    "acting": 1e-3, "autoencoder": 2e-3, "looking": 2e-3, "world": 8e-4,
    "stage1": 8e-4, "stage2": 2e-4, "distilled": 4e-4, "distance": 8e-4,
}
KNOWN_SHARE = 0.3  # of the learning rate, of what the part acting has taught the expert
WORLD = ("world.", "distance.", "readers.", "expert.reader.")  # what the names of its weights begin with
AUTOENCODER = "autoencoder."  # what the names of its weights begin with
PICTURES = {"autoencoder": 32, "looking": 64}  # a step


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--part", type=click.Choice([*PARTS, "all"]), default="all", show_default=True,
              help="distilled: the actions of --start-from in fewer flow steps; distance: its time to the goal alone.")
@click.option("--acting-minutes", default=30.0, show_default=True, help="The expert, from where things are; data without pictures will do.")
@click.option("--autoencoder-minutes", default=10.0, show_default=True)
@click.option("--looking-minutes", default=10.0, show_default=True, help="Where things are in a picture; of data with such labels.")
@click.option("--world-minutes", default=20.0, show_default=True, help="World model alone, before stage 1; not a part of all.")
@click.option("--stage1-minutes", default=60.0, show_default=True, help="World model and expert together.")
@click.option("--stage2-minutes", default=15.0, show_default=True, help="The action loss alone, end to end.")
@click.option("--distilled-minutes", default=30.0, show_default=True)
@click.option("--distance-minutes", default=6.0, show_default=True)
@click.option("--steps", multiple=True, metavar="[PART=]N",
              help="Steps instead of minutes, of one part or of all: the same seed then gives the same curve.")
@click.option("--learning-rate", "rate", multiple=True, metavar="[PART=]R",
              help="Highest, of one part or of all; default: " + ", ".join(f"{part}={rate:g}" for part, rate in RATES.items()) + ".")
@click.option("--flow-steps", default=1, show_default=True, help="Of the distilled part.")
@click.option("--teacher-steps", default=6, show_default=True, help="Flow steps whose result it learns.")
@click.option("--batch", default=12, show_default=True, help="Plans a step, all processes together; each is seen from three live frames.")
@click.option("--accumulate", default=1, show_default=True, help="Parts a process computes its plans of a step in: needs less memory.")
@click.option("--recipe", type=click.Choice(["shipped", "paper"]), default="shipped", show_default=True,
              help="Weights of the losses; paper: L_v + 0.1 L_a, then L_a, without labels.")
@click.option("--weight", multiple=True, metavar="LOSS=W", help="Another weight of one loss (docs/training.md).")
@click.option("--states", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Data without pictures, which the expert goes on to learn from in stages 1 and 2.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="auto: cuda if there is one.")
@click.option("--processes", default=1, show_default=True, help="One for each GPU, or several on CPUs; they share each step's plans.")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="bf16: of activations only.")
@click.option("--check-steps", default=500, show_default=True, type=click.IntRange(1), help="Between held-out losses and pictures.")
@click.option("--start-from", type=click.Path(exists=True, path_type=Path),
              help="Checkpoint, or folder of an exported model, whose weights to start from.")
@click.option("--spacing", type=click.Choice(SPACINGS), help="Of the imagined frames (MSTH); default: the preset's.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Of each process.")
@click.option("--seed", default=0, show_default=True)
@click.option("--preset", default="tiny", show_default=True, help="tiny: two CPU cores; base: one GPU; paper: LTX-Video's layout.")
@click.option("--pretrained", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder with LTX-Video's or Genie Envisioner's weights, for --preset paper.")
@click.option("--views", type=click.IntRange(1, 8), help="Cameras, their pictures one above the other; default: the preset's.")
def command(
    data: Path,
    run: Path,
    part: str,
    acting_minutes: float,
    autoencoder_minutes: float,
    looking_minutes: float,
    world_minutes: float,
    stage1_minutes: float,
    stage2_minutes: float,
    distilled_minutes: float,
    distance_minutes: float,
    steps: tuple[str, ...],
    rate: tuple[str, ...],
    flow_steps: int,
    teacher_steps: int,
    batch: int,
    accumulate: int,
    recipe: str,
    weight: tuple[str, ...],
    states: Path | None,
    device: str,
    processes: int,
    precision: str,
    check_steps: int,
    start_from: Path | None,
    spacing: str | None,
    threads: int,
    seed: int,
    preset: str,
    pretrained: Path | None,
    views: int | None,
) -> None:
    """Train on the episodes in DATA, with checkpoints in RUN; started again, it goes on where it was."""
    from act2goal_ros.learning.checkpoint import CannotWriteError, CheckpointError
    from act2goal_ros.learning.dataset import DatasetError
    from act2goal_ros.learning.devices import make_fabric
    from act2goal_ros.learning.fit import Cadence
    from act2goal_ros.learning.schedule import Schedule, TrainingError

    if part in ("distilled", "distance") and start_from is None:
        raise click.UsageError(f"--part {part} needs --start-from, the weights it goes on from")
    if states is not None and recipe == "paper":
        raise click.UsageError("--states are of a simulator's labels, of which recipe paper takes nothing")
    if states is not None and part not in ("stage1", "stage2", "all"):
        raise click.UsageError(f"--states is for stages 1 and 2, not for the part {part}")
    minutes = {
        "acting": acting_minutes,
        "autoencoder": autoencoder_minutes,
        "looking": looking_minutes,
        "world": world_minutes,
        "stage1": stage1_minutes,
        "stage2": stage2_minutes,
        "distilled": distilled_minutes,
        "distance": distance_minutes,
    }
    counts, rates = _of_parts(steps, int, "--steps"), _of_parts(rate, float, "--learning-rate")
    changes = _numbers(weight, float, "--weight")
    try:
        schedules = {
            name: Schedule(minutes=minutes[name], steps=counts.get(name, counts.get("")), seed=seed,
                           learning_rate=rates.get(name, rates.get("", RATES[name])), batch=batch, parts=processes * accumulate)
            for name in PARTS
        }  # fmt: skip
        for name, count in PICTURES.items():
            schedules[name] = replace(schedules[name], batch=-(-count // processes) * processes, parts=processes)
        fabric = make_fabric(device, processes, precision, threads)
        plans = -(-batch // (processes * accumulate))
        memory = (str(fabric.device), precision == "bf16")
        build = partial(_open_preset, preset, part, plans, pretrained, views, *memory, click.echo, spacing, processes, states is not None)
        train = _Run(data, run, build, fabric, schedules, Cadence(check_steps=check_steps), recipe, changes, part, states)
        train.parts(part, start_from, flow_steps, teacher_steps)
    except (CannotWriteError, CheckpointError, DatasetError, TrainingError) as error:
        raise click.ClickException(str(error)) from error


def _open_preset(*arguments: Any) -> "System":
    """As `open_preset`; what is wrong with preset, published weights or memory is told without a traceback."""
    from act2goal_ros.learning.memory import TooLittleMemoryError
    from act2goal_ros.learning.presets import open_preset

    try:
        return open_preset(*arguments)
    except (ValueError, TooLittleMemoryError) as error:
        raise click.ClickException(str(error)) from error


class _Run:
    """One run on one data set: models, episodes, and the parts to train one after another."""

    def __init__(
        self,
        data: Path,
        folder: Path,
        build: "Callable[[], System]",
        fabric: "Fabric",
        schedules: dict[str, "Schedule"],
        cadence: "Cadence",
        recipe: str,
        changes: dict[str, float],
        part: str,
        states: Path | None,
    ) -> None:
        from act2goal_ros.learning.batches import Episodes
        from act2goal_ros.learning.checks import report
        from act2goal_ros.learning.recipe import OF_LABELS, STAGES, weights
        from act2goal_ros.learning.schedule import seeded

        self.folder, self.fabric, self.schedules, self.cadence = folder, fabric, schedules, cadence
        self.knows = False  # the expert, from the part acting
        self.weights = {stage: weights(recipe, stage, changes) for stage in STAGES}
        seeded(schedules["stage1"].seed, 0, 0)
        self.system = build()  # says so if it does not fit into memory
        self.config = self.system.config
        asked = any(self.weights[stage].get(loss) for stage in STAGES for loss in OF_LABELS)
        labels = asked or recipe != "paper" or part in ("acting", "looking")  # these learn from labels alone
        self.episodes = Episodes(data, config=self.config, pictures=part != "acting", labels=labels)
        self.states = Episodes(states, config=self.config, pictures=False) if states is not None else None
        if self.states is not None:
            _expect_labels(self.states)
        skipped = self.episodes.skipped + (self.states.skipped if self.states else [])
        for line in report(skipped):
            click.echo(line, err=True)
        if skipped:
            click.echo(f"{len(skipped)} shards or episodes skipped", err=True)

    def parts(self, part: str, start_from: Path | None, flow_steps: int, teacher_steps: int) -> None:
        """Trains what was asked for; stage 2 alone goes on from the run's stage 1."""
        from act2goal_ros.learning import acting, released
        from act2goal_ros.learning.arrival import Arrival
        from act2goal_ros.learning.distill import Student
        from act2goal_ros.learning.train import prepare

        system = self.system
        if start_from is None and part == "stage2":
            start_from = self._stage1()
        start = released.weights_of(start_from) if start_from is not None else None
        if part == "acting":
            self._act(system, start, start_from)
            return
        self._prepare_latents(start)
        if part == "autoencoder":
            return
        prepare(system, self.episodes)
        if start is not None and start_from is not None:
            self._start_from(system, start, start_from)
        self._look(system, part)
        begins = part in ("world", "stage1", "all")
        self.knows = begins and acting.take_over(system, self.folder)
        if self.knows:
            click.echo(f"{self.folder}: goes on from the part acting")
        if begins and start is None and part != "world" and (self.folder / "world.pt").exists():
            self._take_over_world(system)
        if part == "distilled":
            system.expert.config = replace(self.config, flow_steps=teacher_steps)
            self._stage(Student(system.to(self.fabric.device), flow_steps), part)
        if part == "distance":
            self._stage(Arrival(system.to(self.fabric.device)), part)
        for stage in ("world", "stage1", "stage2"):
            if part == stage or (part == "all" and stage != "world"):
                self._stage(system, stage)

    def _stage1(self) -> Path | None:
        """The run's newest checkpoint of stage 1. CheckpointError where there is none, and stage 2 has not begun either."""
        from act2goal_ros.learning.checkpoint import CheckpointError, previous

        newest = self.folder / "stage1.pt"
        found = next((path for path in (newest, previous(newest)) if path.is_file()), None)
        if found is None and not (self.folder / "stage2.pt").is_file():
            raise CheckpointError(f"stage 2 goes on from stage 1, and there is no {newest}: train it, or give --start-from")
        return found

    def _act(self, system: "System", start: dict[str, Any] | None, start_from: Path | None) -> None:
        """Trains the expert on where things are."""
        from act2goal_ros.learning import acting
        from act2goal_ros.learning.train import prepare

        _expect_labels(self.episodes)
        acting.show_nothing(self.episodes)
        prepare(system, self.episodes)
        if start is not None and start_from is not None:
            self._start_from(system, start, start_from)
        schedule, weights = self.schedules["acting"], self.weights["stage1"]
        acting.train_acting(self.episodes, system, self.folder, schedule, weights, self.fabric, self.cadence)

    def _look(self, system: "System", part: str) -> None:
        """Trains the live encoder where that is asked for and not done; gives it what it learnt, where no stage went on from that yet."""
        from act2goal_ros.learning import looking

        labelled = looking.is_labelled(self.episodes)
        if part == "looking":
            _expect_labels(self.episodes)
        if part in ("looking", "all") and labelled and not (self.folder / f"{looking.NAME}.pt").exists():
            live, schedule = system.expert.live, self.schedules["looking"]
            looking.train_looking(self.episodes, self.config, live, self.folder, schedule, self.fabric, self.cadence)
        if part in ("looking", "world", "stage1", "all") and looking.take_over(system.expert.live, self.folder):
            click.echo(f"{self.folder}: goes on from the part looking")

    def _prepare_latents(self, start: dict[str, Any] | None) -> None:
        """With the run's autoencoder; where it has none, with that of what it starts from; else it is trained. One that is given (ltx)
        sees pictures as it goes."""
        from act2goal_ros.learning import train
        from act2goal_ros.learning.checkpoint import load, load_weights, save

        if self.config.architecture == "ltx":
            from act2goal_ros.learning.ltx_system import show_pictures

            show_pictures(self.episodes)
            return
        path = self.folder / "autoencoder.pt"
        if not path.exists() and start is not None and self.fabric.is_global_zero:
            own = {name.removeprefix(AUTOENCODER): value for name, value in start["average"].items() if name.startswith(AUTOENCODER)}
            if own:  # a checkpoint of the part acting has none
                save(path, {"model": own, "steps": 0, "config": start.get("config")})
        self.fabric.barrier()
        if not path.exists():
            train.train_autoencoder(self.episodes, self.config, self.folder, self.schedules["autoencoder"], self.fabric, self.cadence)
        state = load(path, "model")
        load_weights(self.system.autoencoder, state["model"], state.get("config"), path)
        train.encode_all(self.episodes, self.system.autoencoder, self.config, fabric=self.fabric)

    def _start_from(self, system: "System", start: dict[str, Any], path: Path) -> None:
        """Takes all weights but the autoencoder's, whose latents are on the disk already."""
        from act2goal_ros.learning.checkpoint import load_weights

        weights = {name: value for name, value in start["average"].items() if not name.startswith(AUTOENCODER)}
        missing = [name for name in load_weights(system, weights, start.get("config"), path) if not name.startswith(AUTOENCODER)]
        click.echo(f"starts from {path}; new there: {', '.join(missing) or 'nothing'}")

    def _take_over_world(self, system: "System") -> None:
        """What the part world has learnt: world model, temporal distance, and how to read its features."""
        from act2goal_ros.learning.checkpoint import load, load_weights

        path = self.folder / "world.pt"
        state = load(path, "average")
        learnt = {name: value for name, value in state["average"].items() if name.startswith(WORLD)}
        load_weights(system, learnt, state.get("config"), path)
        click.echo(f"{self.folder}: goes on from the part world")

    def _stage(self, system: "System", name: str) -> None:
        from act2goal_ros.learning.train import train_system

        share, told = KNOWN_SHARE if self.knows and name == "stage1" else 1.0, self.states if name in ("stage1", "stage2") else None
        schedule, weights = self.schedules[name], self.weights[name]
        train_system(self.episodes, system, self.folder, schedule, weights, name, self.fabric, self.cadence, share, told)


def _expect_labels(episodes: "Episodes") -> None:
    """Raises DatasetError where no episode tells where things are."""
    from act2goal_ros.learning import looking
    from act2goal_ros.learning.dataset import DatasetError

    if not looking.is_labelled(episodes):
        raise DatasetError("no episode has key points, at least 1 needed: they are labels of the simulator (act2goal data sim)")


def _of_parts(texts: Sequence[str], kind: type[Number], option: str) -> dict[str, Number]:
    """As `_numbers`, with parts for names, or none for all of them."""
    numbers = _numbers(texts, kind, option)
    if unknown := numbers.keys() - {*PARTS, ""}:
        raise click.UsageError(f"{option} of {', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return numbers


def _numbers(texts: Sequence[str], kind: type[Number], option: str) -> dict[str, Number]:
    """Values by name of an option given as NAME=VALUE, or as VALUE, whose name is then empty."""
    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = kind(value)
        except ValueError as error:
            raise click.UsageError(f"{option} {text}: {value!r} is no {kind.__name__}") from error
    return found
