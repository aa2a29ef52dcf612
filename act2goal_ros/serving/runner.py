"""One way to run a network, whatever serves it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

BACKENDS = ("auto", "onnxruntime", "tensorrt", "cuda")


class BackendError(RuntimeError):
    """A backend that cannot serve here; the message says why and what can."""


class Runner(Protocol):
    """Runs one network: named arrays in, named arrays out."""

    backend: str

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; raises ValueError on a missing input or a wrong shape."""
        ...


class OnnxRunner:
    """ONNX Runtime on the CPU."""

    backend = "onnxruntime"

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._shapes = {i.name: i.shape for i in self._session.get_inputs()}
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs the graph has; the exporter drops those that do not matter."""
        return list(self._shapes)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        missing = set(self._shapes) - set(inputs)
        if missing:
            raise ValueError(f"missing inputs {sorted(missing)}")
        for name, shape in self._shapes.items():
            given = inputs[name].shape
            if len(given) != len(shape) or any(isinstance(e, int) and e != g for e, g in zip(shape, given, strict=True)):
                raise ValueError(f"input '{name}' has shape {given}, the network takes {tuple(shape)}")
        outputs = self._session.run(self._outputs, {name: inputs[name] for name in self._shapes})
        return dict(zip(self._outputs, outputs, strict=True))


def make_runner(path: Path, backend: str = "auto", threads: int = 1) -> Runner:
    """A runner for the ONNX file at `path`; `auto` takes the best backend that works here."""
    if backend not in BACKENDS:
        raise BackendError(f"backend '{backend}' is not one of {', '.join(BACKENDS)}")
    if backend in ("tensorrt", "cuda"):
        raise BackendError(f"backend '{backend}' is not served by this version; use 'auto' or 'onnxruntime' (CPU)")
    return OnnxRunner(path, threads)
