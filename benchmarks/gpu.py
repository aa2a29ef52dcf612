"""Tick and imagination on a GPU: TensorRT, ONNX Runtime's CUDA provider, torch.compile, eager torch; tiny, base and paper size.

Weights are random: time does not depend on them. `paper` has the paper's widths, depth, latents and chunk in this package's own
architecture. Where an ONNX file cannot hold a network (2 GB), only torch runs it. Each backend's output is compared with eager
float32's. --publish keeps the rows in docs/results/realtime.json. With --device cpu what needs no GPU runs.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import results
import torch
from tqdm import tqdm

from act2goal_ros.cli.engine import timed
from act2goal_ros.learning.system import System
from act2goal_ros.model.config import PRESETS, ModelConfig
from act2goal_ros.serving.backends import make_runner
from act2goal_ros.serving.export import to_onnx
from act2goal_ros.serving.networks import Network, networks
from act2goal_ros.serving.reference import share
from act2goal_ros.serving.runner import BackendError, Runner
from act2goal_ros.serving.torch_runner import TorchRunner

NETWORKS = ("tick", "imagine")
LARGEST_ONNX = 2**31  # bytes of a protobuf file
Make = Callable[[], Runner]


def config_of(size: str) -> ModelConfig:
    """A preset as it can be served."""
    return replace(PRESETS[size], architecture="compact", views=1, temporal_compression=1)


def backends(network: Network, folder: Path, name: str, device: str) -> Iterator[tuple[str, str, Make]]:
    """(backend, precision, what makes the runner); eager torch in float32, which all are compared with, is the first."""
    path = folder / f"{name}.onnx"

    def torch_runner(precision: str, compiled: bool) -> Make:
        return lambda: TorchRunner(network, device, precision, compiled)

    def onnx_runner(backend: str, precision: str) -> Make:
        def make() -> Runner:
            if parameter_bytes(network) > LARGEST_ONNX:
                raise BackendError(f"{parameter_bytes(network) / 1e9:.1f} GB of weights, an ONNX file holds {LARGEST_ONNX / 1e9:.1f}")
            return make_runner(path, backend, 1, precision)

        return make

    yield "torch", "float32", torch_runner("float32", False)
    if device == "cpu":
        yield "onnxruntime", "float32", onnx_runner("onnxruntime", "float32")
    else:
        for precision in ("float32", "float16", "bfloat16"):
            yield "tensorrt", precision, onnx_runner("tensorrt", precision)
        yield "onnxruntime_cuda", "float32", onnx_runner("onnxruntime_cuda", "float32")
    yield "torch_compiled", "float32", torch_runner("float32", True)
    yield "torch", "float16", torch_runner("float16", False)  # from here on weights are
    yield "torch_compiled", "float16", torch_runner("float16", True)


def parameter_bytes(network: Network) -> int:
    """In float32."""
    return 4 * sum(parameter.numel() for parameter in network.module.parameters())


def measure(size: str, name: str, device: str, runs: int, only: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row a backend: p50 and p99 in ms and the difference from eager float32, or why it did not run."""
    torch.manual_seed(0)
    network = networks(System(config_of(size)).eval())[name]
    inputs = {key: value.detach().numpy() for key, value in zip(network.inputs, network.example, strict=True)}
    about = {"size": size, "network": name, "parameters": parameter_bytes(network) // 4}
    expected: dict[str, np.ndarray] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if parameter_bytes(network) <= LARGEST_ONNX:
            to_onnx(network, Path(folder) / f"{name}.onnx")
        for backend, precision, make in backends(network, Path(folder), name, device):
            if only and backend not in only and expected:
                continue
            row: dict[str, Any] = {**about, "backend": backend, "precision": precision}
            try:
                runner = make()
                found = runner(inputs)
                expected = expected or found
                p50, p99 = np.percentile(1000 * timed(runner, inputs, runs), [50, 99])
            except Exception as error:  # noqa: BLE001 - one backend that fails must not hide the others
                row["left_out"] = f"{type(error).__name__}: {error}"[:300]
            else:
                row |= {"p50": float(p50), "p99": float(p99), "runs": runs}
                row["difference"] = max(share(found[key], value) for key, value in expected.items())
            rows.append(row)
            tqdm.write(json.dumps(row))
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """p50 of torch.compile over TensorRT's, the quicker precision of each, by size and network."""
    found = {}
    for key in sorted({(row["size"], row["network"]) for row in rows}):
        times = {name: [row["p50"] for row in rows if (row["size"], row["network"], row["backend"]) == (*key, name) and "p50" in row]
                 for name in ("torch_compiled", "tensorrt")}  # fmt: skip
        if all(times.values()):
            found[" ".join(key)] = min(times["torch_compiled"]) / min(times["tensorrt"])
    return found


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(PRESETS)), help="Default: all.")
@click.option("--network", "names", multiple=True, type=click.Choice(NETWORKS), help="Default: both.")
@click.option("--backend", "only", multiple=True, help="Beside eager float32 only these; default: all there are for the device.")
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]))
@click.option("--runs", default=300, show_default=True, type=click.IntRange(1))
@click.option("--publish", is_flag=True, help="Into docs/results/realtime.json.")
def main(sizes: tuple[str, ...], names: tuple[str, ...], only: tuple[str, ...], device: str, runs: int, publish: bool) -> None:
    """Time networks on each backend, one call at a time, from arrays on the host to arrays on the host."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException(f"no NVIDIA GPU, or a torch without CUDA ({torch.__version__}); --device cpu runs what needs none")
    if device == "cpu":
        torch.set_num_threads(1)  # as onnxruntime
    jobs = [(size, name) for size in sizes or PRESETS for name in names or NETWORKS]
    rows = [row for size, name in tqdm(jobs, unit="network") for row in measure(size, name, device, runs, only)]
    found = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "rows": rows, "compile_over_tensorrt": ratios(rows)}
    click.echo(json.dumps(found["compile_over_tensorrt"], indent=2))
    if publish:
        results.merge("realtime", {"gpu": found} | results.command("gpu"))


if __name__ == "__main__":
    main()
