"""What the trained networks give in torch float32 for one input each: every backend is held to it when it is loaded."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from act2goal_ros.serving.runner import BackendError, Runner

FILE = "reference.npz"
# Largest difference allowed, as a share of the output's largest magnitude (at least of 1): far above rounding, far below a wrong kernel.
TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 3e-2}

Arrays = Mapping[str, np.ndarray]


def save(folder: Path, samples: Mapping[str, tuple[Arrays, Arrays]]) -> None:
    """Writes each network's inputs and outputs."""
    flat = {f"{name}/{kind}/{key}": value for name, pair in samples.items() for kind, arrays in zip(("in", "out"), pair, strict=True)
            for key, value in arrays.items()}  # fmt: skip
    np.savez_compressed(folder / FILE, **flat)  # type: ignore[arg-type]


class Reference:
    """The samples of a model folder."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / FILE, allow_pickle=False) as file:
            self._arrays = {name: file[name] for name in file.files}

    def inputs(self, network: str) -> dict[str, np.ndarray]:
        """The network's inputs by name."""
        return self._of(network, "in")

    def difference(self, network: str, runner: Runner) -> float:
        """Largest difference of the runner's outputs, as a share of each output's largest magnitude (at least of 1)."""
        return _largest(self._outputs(network, runner))

    def _outputs(self, network: str, runner: Runner) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """What the runner gives and what torch gave, by the output's name."""
        found = runner(self.inputs(network))
        return {name: (found[name], value) for name, value in self._of(network, "out").items()}

    def _of(self, network: str, kind: str) -> dict[str, np.ndarray]:
        start = f"{network}/{kind}/"
        return {key.removeprefix(start): value for key, value in self._arrays.items() if key.startswith(start)}

    def check(self, network: str, runner: Runner) -> float:
        """The difference; BackendError when it is more than the runner's precision explains, or an output has another shape."""
        outputs = self._outputs(network, runner)
        for name, (found, expected) in outputs.items():
            if found.shape != expected.shape:
                raise BackendError(f"{network}: output '{name}' has shape {found.shape}, torch's has {expected.shape}")
        difference, allowed = _largest(outputs), TOLERANCE[runner.precision]
        if not difference <= allowed:
            raise BackendError(f"{network} differs from torch float32 by {difference:.2g} of its range, at most {allowed:g} allowed")
        return difference


def _largest(outputs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
    return max(share(found, expected) for found, expected in outputs.values())


def share(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest magnitude expected (at least of 1); infinite where shape or finiteness differ."""
    if found.shape != expected.shape:
        return float("inf")
    if not np.isfinite(found).all():  # of several outputs, max() would take the number
        return float("inf")
    return float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
