"""Which backends there are, which of them work here, and the networks of a model served by one of them."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from act2goal_ros.serving import BACKENDS, PRECISION, PRECISIONS, PREFERRED, tensorrt
from act2goal_ros.serving.engine import EngineCache
from act2goal_ros.serving.reference import Reference
from act2goal_ros.serving.runner import BackendError, OnnxRunner, Runner, require

PROVIDERS = {
    "onnxruntime_tensorrt": "TensorrtExecutionProvider",
    "onnxruntime_cuda": "CUDAExecutionProvider",
    "onnxruntime": "CPUExecutionProvider",
}
HALF = {"float16": "trt_fp16_enable", "bfloat16": "trt_bf16_enable"}  # of ONNX Runtime's TensorRT provider

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """Networks of a model by name, all on one backend, and why those before it were passed over."""

    backend: str
    runners: Mapping[str, Runner]
    passed_over: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join([f"backend {self.backend}", *(f"not {name}: {why}" for name, why in self.passed_over.items())])


def make_runner(path: Path, backend: str = "onnxruntime", threads: int = 1, precision: str = PRECISION) -> Runner:
    """A runner of the ONNX file at `path`; `precision` is TensorRT's. BackendError says why it cannot be had here."""
    if backend == "tensorrt":
        return tensorrt.runner(path, precision)
    if backend == "torch":
        return _torch_runner(path, threads)
    if backend not in PROVIDERS:
        raise BackendError(f"backend '{backend}' is not one of {', '.join(BACKENDS)}")
    require(PROVIDERS[backend])
    if backend == "onnxruntime_tensorrt":
        return OnnxRunner(path, threads, PROVIDERS[backend], backend, precision, _tensorrt_settings(path, precision))
    return OnnxRunner(path, threads, PROVIDERS[backend], backend)


def _tensorrt_settings(network: Path, precision: str) -> dict[str, str | bool]:
    """Options of ONNX Runtime's TensorRT provider: what engines compute in, and where they are kept, if they can be."""
    if precision not in PRECISIONS:
        raise BackendError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)}")
    settings: dict[str, str | bool] = {HALF[precision]: True} if precision in HALF else {}
    folder = EngineCache().folder / "onnxruntime"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("%s cannot be made, engines are built at every start: %s", folder, error)
        return settings
    digest = hashlib.sha256(network.read_bytes()).hexdigest()[:16]  # the provider's own key knows names, not weights
    prefix = f"{network.stem}-{precision}-{digest}"
    return settings | {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder), "trt_engine_cache_prefix": prefix}


def _torch_runner(path: Path, threads: int) -> Runner:
    try:
        from act2goal_ros.serving.torch_runner import runner
    except ImportError as error:
        raise BackendError(f"backend 'torch' is for development, it needs requirements/train.txt and torch.txt: {error}") from error
    return runner(path, threads)


def serve(folder: Path, networks: Iterable[str], backend: str = "auto", threads: int = 1, precision: str = PRECISION) -> Served:
    """All `networks` of the model in `folder` on `backend`, or on the best that works and computes what torch does."""
    if backend not in BACKENDS:
        raise BackendError(f"backend '{backend}' is not one of {', '.join(BACKENDS)}")
    names, reference, passed_over = tuple(networks), Reference(folder), {}
    for candidate in PREFERRED if backend == "auto" else (backend,):
        runners: dict[str, Runner] = {}
        network = ""
        try:
            for network in names:
                runners[network] = make_runner(folder / f"{network}.onnx", candidate, threads, precision)
                reference.check(network, runners[network])
        except BackendError as error:
            passed_over[candidate] = str(error)
        except Exception as error:  # noqa: BLE001 - drivers and libraries raise what they like, and the next backend may work
            passed_over[candidate] = f"{network}: {type(error).__name__}: {error}"
        else:
            return Served(candidate, runners, passed_over)
    raise BackendError("; ".join(f"backend '{name}' cannot serve {folder.name}: {why}" for name, why in passed_over.items()))
