"""Networks on an NVIDIA GPU by TensorRT: pinned buffers, one stream, and a CUDA graph of computing and copying out; only what has
changed is copied in."""

import ctypes
import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from act2goal_ros.serving.engine import LARGEST, EngineCache, Target, library
from act2goal_ros.serving.runner import BackendError, check_inputs

log = logging.getLogger(__name__)


class EngineRefused(BackendError):
    """An engine that TensorRT does not load on this GPU."""


def cuda() -> Any:
    """CUDA's runtime. BackendError without its package, or without a GPU."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendError(f"TensorRT is fed by the package cuda-bindings: {error}") from error
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess or not count:
        raise BackendError(f"no NVIDIA GPU: {status.name}")
    return runtime


def capability(runtime: Any) -> str:
    """Of the first GPU, as in SM89."""
    kinds = runtime.cudaDeviceAttr
    parts = (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
    return "SM" + "".join(str(_done(runtime, runtime.cudaDeviceGetAttribute(part, 0))) for part in parts)


def target(runtime: Any, trt: ModuleType, precision: str) -> Target:
    """What that package's engines for the first GPU are made for: `tensorrt_rtx`'s for its compute capability, others' for its model."""
    name = b"" if trt.__name__ == "tensorrt_rtx" else _done(runtime, runtime.cudaGetDeviceProperties(0)).name
    return Target(trt.__name__, trt.__version__, capability(runtime), precision, name.partition(b"\0")[0].decode())


def runner(network: Path, precision: str) -> "TensorRTRunner":
    """The ONNX network as an engine for the GPU at hand, from the cache where it is there and loads."""
    runtime = cuda()  # first: without a GPU a large library need not be loaded
    trt, cache = library(), EngineCache()
    made_for = target(runtime, trt, precision)
    kept = cache.find(network, made_for)
    if kept is not None:
        try:
            return TensorRTRunner(kept, trt, runtime, precision)
        except EngineRefused as error:
            log.warning("%s: %s; building it anew", cache.path(network, made_for), error)
            cache.remove(network, made_for)
    return TensorRTRunner(cache.make(network, made_for), trt, runtime, precision)


def _done(runtime: Any, answer: tuple[Any, ...], doing: str = "") -> Any:
    """What a CUDA call returned; BackendError when it failed, `doing` what."""
    status, *values = answer
    if status != runtime.cudaError_t.cudaSuccess:
        raise BackendError(f"CUDA: {status.name}{doing and f', {doing}'}")
    return values[0] if values else None


class _Buffer:
    """A tensor twice: pinned on the host, and on the GPU."""

    def __init__(self, runtime: Any, shape: tuple[int, ...], dtype: Any) -> None:
        self.dtype, self.bytes = np.dtype(dtype), int(np.prod(shape)) * np.dtype(dtype).itemsize
        doing = f"allocating {self.bytes} bytes"
        self.host_address = int(_done(runtime, runtime.cudaMallocHost(self.bytes), f"{doing} of pinned memory"))
        weakref.finalize(self, runtime.cudaFreeHost, self.host_address)
        self.device_address = int(_done(runtime, runtime.cudaMalloc(self.bytes), f"{doing} of the GPU's memory"))
        weakref.finalize(self, runtime.cudaFree, self.device_address)
        self._memory = (ctypes.c_byte * self.bytes).from_address(self.host_address)

    def host(self, shape: tuple[int, ...]) -> np.ndarray:
        """The host's memory as an array of that shape."""
        return np.frombuffer(self._memory, self.dtype, int(np.prod(shape))).reshape(shape)


class TensorRTRunner:
    """Runs one engine. Not for several threads at once. A GPU that fails raises BackendError, at once or at the next call."""

    backend = "tensorrt"

    def __init__(self, engine: bytes, trt: ModuleType, runtime: Any, precision: str) -> None:
        self.precision, self._cuda, self._trt = precision, runtime, trt
        self._deserializer = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._deserializer.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineRefused(f"{trt.__name__} {trt.__version__} cannot load the engine on this GPU")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(f"{trt.__name__} {trt.__version__} cannot prepare the engine on this GPU; its memory may be full")
        self._stream = _done(runtime, runtime.cudaStreamCreate())
        weakref.finalize(self, runtime.cudaStreamDestroy, self._stream)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in self._inputs]
        declared = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        self._shapes = {name: tuple("any" if e < 0 else e for e in declared[name]) for name in self._inputs}
        self._fixed = not any(-1 in shape for shape in declared.values())
        self._buffers = {name: self._buffer(name, shape) for name, shape in declared.items()}
        self._graph: Any = None
        self._given: dict[str, np.ndarray] = {}  # what the GPU has

    def _buffer(self, name: str, shape: tuple[int, ...]) -> _Buffer:
        largest = tuple(LARGEST if extent < 0 else extent for extent in shape)
        buffer = _Buffer(self._cuda, largest, self._trt.nptype(self._engine.get_tensor_dtype(name)))
        self._context.set_tensor_address(name, buffer.device_address)
        return buffer

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        fresh = [name for name in self._inputs if name not in inputs or inputs[name] is not self._given.get(name)]
        check_inputs({name: self._shapes[name] for name in fresh}, inputs)
        for name in fresh:
            given = inputs[name]
            if any(extent > LARGEST for extent, declared in zip(given.shape, self._shapes[name], strict=True) if declared == "any"):
                raise ValueError(f"input '{name}' has shape {given.shape}, the engine takes at most {LARGEST} of an open extent")
            self._upload(name, given)
            self._given[name] = given
        if self._graph is None:
            self._enqueue()
        else:
            _done(self._cuda, self._cuda.cudaGraphLaunch(self._graph, self._stream))
        _done(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
        found = {name: self._buffers[name].host(tuple(self._context.get_tensor_shape(name))).copy() for name in self._outputs}
        if self._graph is None and self._fixed:
            self._graph = self._capture()  # after a first run, which allocates
        return found

    def _upload(self, name: str, given: np.ndarray) -> None:
        runtime, buffer = self._cuda, self._buffers[name]
        np.copyto(buffer.host(given.shape), given)
        if not self._fixed:
            self._context.set_input_shape(name, given.shape)
        _done(runtime, runtime.cudaMemcpyAsync(buffer.device_address, buffer.host_address, buffer.bytes,
                                               runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, self._stream))  # fmt: skip

    def _enqueue(self) -> None:
        """Computes and copies out, on the stream."""
        runtime, kinds = self._cuda, self._cuda.cudaMemcpyKind
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError("TensorRT could not run the engine")
        for name in self._outputs:
            buffer = self._buffers[name]
            _done(runtime, runtime.cudaMemcpyAsync(buffer.host_address, buffer.device_address, buffer.bytes,
                                                   kinds.cudaMemcpyDeviceToHost, self._stream))  # fmt: skip

    def _capture(self) -> Any:
        """The CUDA graph of `_enqueue`; None where the engine cannot be captured."""
        runtime = self._cuda
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(int(self._stream)):
            return None
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _done(runtime, runtime.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue()
        graph = _done(runtime, runtime.cudaStreamEndCapture(self._stream))
        executable = _done(runtime, runtime.cudaGraphInstantiate(graph, 0))
        weakref.finalize(self, runtime.cudaGraphExecDestroy, executable)
        _done(runtime, runtime.cudaGraphDestroy(graph))
        return executable
