"""`act2goal engine`: TensorRT engines, built ahead of time and looked at, and every backend's speed here."""

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from tqdm import tqdm

from act2goal_ros import paths
from act2goal_ros.serving import BACKENDS, PRECISION, PRECISIONS, PREFERRED

if TYPE_CHECKING:
    from act2goal_ros.serving.runner import Runner


@click.group()
def command() -> None:
    """Build, list and time what runs a model's networks."""


@command.command()
@click.argument("model", default="act2goal-tiny")
@click.option("--gpu", "capabilities", multiple=True, help="Compute capability to build for, as SM89 (RTX 4090); default: the GPU here.")
@click.option("--precision", type=click.Choice(PRECISIONS), default=PRECISION, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where engines go; default: the cache the nodes read.")
def build(model: str, capabilities: tuple[str, ...], precision: str, folder: Path | None) -> None:
    """Build the engines of MODEL. With TensorRT for RTX no GPU is needed for it."""
    from act2goal_ros.serving import tensorrt
    from act2goal_ros.serving.bundle import NETWORKS
    from act2goal_ros.serving.engine import EngineCache, Target, library
    from act2goal_ros.serving.runner import BackendError

    cache = EngineCache(folder)
    try:
        trt = library(("tensorrt_rtx",)) if capabilities else library()
        targets = [Target(trt.__name__, trt.__version__, capability, precision) for capability in capabilities]
        jobs = [(network, target) for target in targets or [tensorrt.target(tensorrt.cuda(), trt, precision)] for network in NETWORKS]
        with tqdm(jobs, unit="engine") as bar:
            for network, target in bar:
                bar.set_postfix_str(f"{network} {target.capability}")
                path, started = paths.model(model) / f"{network}.onnx", time.monotonic()
                engine = cache.get(path, target)
                tqdm.write(f"{cache.path(path, target)}  {len(engine) / 1e6:.1f} MB, {time.monotonic() - started:.1f} s")
    except BackendError as error:
        raise click.ClickException(str(error)) from error


@command.command("list")
@click.option("--folder", type=click.Path(path_type=Path), help="Default: the cache the nodes read.")
def list_engines(folder: Path | None) -> None:
    """What the cache holds, and whether it is sound."""
    from act2goal_ros.serving.engine import EngineCache

    found = EngineCache(folder).headers()
    for path, header in found.items():
        made_for = " ".join(str(header.get(key, "?")) for key in ("library", "version", "capability", "precision"))
        made_for += f" {header['device']}" if header.get("device") else ""
        click.echo(f"{path.name}  {made_for if header else 'damaged: will be built anew'}  {path.stat().st_size / 1e6:.1f} MB")
    if not found:
        click.echo("no engines")


@command.command()
@click.argument("model", default="act2goal-tiny")
@click.option("--backend", "backends", multiple=True, type=click.Choice(BACKENDS[1:]), help="Default: all but torch.")
@click.option("--runs", default=500, show_default=True, type=click.IntRange(10), help="Of each network, after 20 to warm up.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option("--precision", type=click.Choice(PRECISIONS), default=PRECISION, show_default=True, help="Of TensorRT.")
def bench(model: str, backends: tuple[str, ...], runs: int, threads: int, precision: str) -> None:
    """Time the networks of MODEL on each backend that works here, on the inputs they were exported with."""
    from act2goal_ros.serving.backends import serve
    from act2goal_ros.serving.bundle import ModelBundle
    from act2goal_ros.serving.reference import Reference
    from act2goal_ros.serving.runner import BackendError

    folder = ModelBundle.load(paths.model(model)).folder
    reference, names = Reference(folder), ("encode", "imagine", "plan_keys", "tick")
    click.echo(f"{model}, {platform.processor() or platform.machine()}, {threads} thread(s), {runs} runs")
    for backend in backends or PREFERRED:
        try:
            served = serve(folder, names, backend, threads, precision)
        except BackendError as error:
            click.echo(str(error))
            continue
        times = {name: timed(served.runners[name], reference.inputs(name), runs) for name in names}
        for name, taken in times.items():
            p50, p99 = np.percentile(1000 * taken, [50, 99])
            click.echo(f"{backend:>20}  {name:<18}  p50 {p50:7.2f} ms   p99 {p99:7.2f} ms")


def timed(runner: "Runner", inputs: Mapping[str, np.ndarray], runs: int) -> np.ndarray:
    """Seconds of each run, after 20 to warm up; like in the graph, plan and adapter stay and all else is new in each."""
    staying = {name for name in inputs if name in ("keys", "values") or name.startswith("blocks.")}
    for _ in range(20):
        runner(inputs)
    taken = np.empty(runs)
    for i in range(runs):
        inputs = {name: value if name in staying else value.copy() for name, value in inputs.items()}
        started = time.perf_counter()
        runner(inputs)
        taken[i] = time.perf_counter() - started
    return taken
