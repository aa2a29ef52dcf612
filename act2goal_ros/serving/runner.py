"""One way to run a network, whatever serves it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime


class BackendError(RuntimeError):
    """A backend that cannot serve here; the message says why and what can."""


class Runner(Protocol):
    """Runs one network: named arrays in, named arrays out.

    An array that is given again, the same object, must not have been changed: what is on the device already is not copied again.
    """

    backend: str
    precision: str  # one of PRECISIONS

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name; raises ValueError on a missing input or a wrong shape."""
        ...


def check_inputs(shapes: Mapping[str, Sequence[int | str]], inputs: Mapping[str, np.ndarray]) -> None:
    """ValueError where an input is missing or has not the shape the network takes; an extent that is no number may be any."""
    missing = set(shapes) - set(inputs)
    if missing:
        raise ValueError(f"missing inputs {sorted(missing)}")
    for name, shape in shapes.items():
        given = inputs[name].shape
        if len(given) != len(shape) or any(isinstance(e, int) and e != g for e, g in zip(shape, given, strict=True)):
            raise ValueError(f"input '{name}' has shape {given}, the network takes {tuple(shape)}")


def require(provider: str) -> None:
    """BackendError where this ONNX Runtime has no such execution provider."""
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(f"onnxruntime {onnxruntime.__version__} here has no {provider}; onnxruntime-gpu has, with an NVIDIA GPU")


class OnnxRunner:
    """ONNX Runtime, with one of its execution providers. BackendError where the provider cannot be had.

    `precision` is what the provider computes in with `settings`, its options.
    """

    def __init__(
        self,
        network: Path | bytes,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
        backend: str = "onnxruntime",
        precision: str = "float32",
        settings: Mapping[str, str | bool] | None = None,
    ) -> None:
        require(provider)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.backend, self.precision = backend, precision
        source = network if isinstance(network, bytes) else str(network)
        self._session = onnxruntime.InferenceSession(source, options, providers=[(provider, dict(settings or {}))])
        if self._session.get_providers()[0] != provider:
            raise BackendError(f"{provider} does not start here: ONNX Runtime took {self._session.get_providers()[0]} instead")
        self._shapes = {i.name: i.shape for i in self._session.get_inputs()}
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._binding = self._session.io_binding()
        self._given: dict[str, np.ndarray] = {}  # the arrays of the last call
        self._held: dict[str, np.ndarray] = {}  # the memory that is bound

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs the graph has; the exporter drops those that do not matter."""
        return list(self._shapes)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        fresh = [name for name in self._shapes if name not in inputs or inputs[name] is not self._given.get(name)]
        check_inputs({name: self._shapes[name] for name in fresh}, inputs)
        for name in fresh:
            self._held[name] = np.ascontiguousarray(inputs[name], np.float32)
            self._binding.bind_cpu_input(name, self._held[name])
            self._given[name] = inputs[name]
        self._binding.clear_binding_outputs()  # else the next run writes over what this one gave
        for name in self._outputs:
            self._binding.bind_output(name)
        self._session.run_with_iobinding(self._binding)
        return dict(zip(self._outputs, self._binding.copy_outputs_to_cpu(), strict=True))
