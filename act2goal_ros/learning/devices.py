"""One process or many, on CPUs or GPUs: what Lightning Fabric is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from act2goal_ros.learning.schedule import TrainingError

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}  # weights, their average and the optimizer are float32 in both
PATIENCE = timedelta(hours=3)  # of processes that wait while the first one checks or writes


def make_fabric(device: str = "cpu", processes: int = 1, precision: str = "fp32", threads: int | None = None) -> Fabric:
    """device: cpu, cuda or auto (cuda where there is one); processes: one a GPU; threads: of each on the CPU.

    With more than one process the others are started here, by the same command line; or by torchrun, if that runs this.
    Raises TrainingError if there are too few GPUs.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if device == "cuda" and torch.cuda.device_count() < processes:
        raise TrainingError(f"{processes} processes on GPUs: {torch.cuda.device_count()} found, {processes} needed")
    strategy = DDPStrategy(timeout=PATIENCE, forward_sync_buffers=False) if processes > 1 else "auto"
    fabric = Fabric(accelerator=device, devices=processes, strategy=strategy, precision=PRECISIONS[precision])
    fabric.launch()
    if threads is not None:
        torch.set_num_threads(threads)
    return fabric


@contextmanager
def made_on(device: torch.device) -> Iterator[None]:
    """Tensors that are made, noise above all, are made on this device. Costs nothing on a CPU."""
    if device.type == "cpu":
        yield
        return
    with device:
        yield
