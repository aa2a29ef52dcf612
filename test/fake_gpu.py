"""CUDA's runtime and TensorRT as far as TensorRTRunner uses them, on the CPU: streams run at once, engines are ONNX files."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnxruntime

Action = Callable[[], None]


class Cuda:
    """Memory is the host's; a captured graph is a list of actions."""

    cudaError_t = SimpleNamespace(cudaSuccess=SimpleNamespace(name="cudaSuccess"))
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=9)  # the answers

    def __init__(self, room: int = 1000) -> None:
        self.memory: dict[int, ctypes.Array] = {}
        self.room = room  # for so many allocations
        self.handles = 0  # streams and graphs
        self.launches, self.uploads, self.lost = 0, 0, False
        self._captured: list[Action] | None = None

    def _answer(self, *values):
        status = SimpleNamespace(name="cudaErrorDeviceLost") if self.lost else self.cudaError_t.cudaSuccess
        return (status, *values)

    def cudaDeviceGetAttribute(self, attribute, device):  # noqa: N802
        return self._answer(attribute)

    def cudaGetDeviceProperties(self, device):  # noqa: N802
        return self._answer(SimpleNamespace(name=b"Fake 4090\0"))

    def do(self, action: Action) -> None:
        if self._captured is None:
            action()
        else:
            self._captured.append(action)

    def _allocate(self, size):
        if len(self.memory) >= self.room:
            return SimpleNamespace(name="cudaErrorMemoryAllocation"), 0
        memory = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(memory)] = memory
        return self._answer(ctypes.addressof(memory))

    cudaMalloc = cudaMallocHost = _allocate  # noqa: N815

    def _release(self, address):
        del self.memory[address]
        return self._answer()

    cudaFree = cudaFreeHost = _release  # noqa: N815

    def _destroy(self, handle):
        self.handles -= 1
        return self._answer()

    cudaStreamDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _destroy  # noqa: N815

    def cudaStreamCreate(self):  # noqa: N802
        self.handles += 1
        return self._answer(7)

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        return self._answer()

    def cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        self.uploads += kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.do(lambda: ctypes.memmove(to, source, size))
        return self._answer()

    def cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        self._captured = []
        return self._answer()

    def cudaStreamEndCapture(self, stream):  # noqa: N802
        captured, self._captured = self._captured, None
        self.handles += 1
        return self._answer(captured)

    def cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        self.handles += 1
        return self._answer(graph)

    def cudaGraphLaunch(self, graph, stream):  # noqa: N802
        self.launches += 1
        for action in graph:
            action()
        return self._answer()


class Context:
    """Computes from and to the addresses it was given."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._addresses, self._given = engine, {}, {}

    def set_tensor_address(self, name, address):
        self._addresses[name] = address

    def set_input_shape(self, name, shape):
        self._given[name] = shape

    def get_tensor_shape(self, name):
        if name in self._given:
            return self._given[name]
        extent = next(iter(self._given.values()))[0] if self._given else None
        return tuple(extent if e < 0 else e for e in self._engine.get_tensor_shape(name))

    def execute_async_v3(self, stream):
        self._engine.cuda.do(self._compute)
        return True

    def _array(self, name):
        shape = self.get_tensor_shape(name)
        size = int(np.prod(shape))
        return np.frombuffer((ctypes.c_float * size).from_address(self._addresses[name]), np.float32).reshape(shape)

    def _compute(self):
        session = self._engine.session
        outputs = session.run(None, {i.name: self._array(i.name) for i in session.get_inputs()})
        for output, value in zip(session.get_outputs(), outputs, strict=True):
            np.copyto(self._array(output.name), value)


class Engine:
    """An ONNX network."""

    def __init__(self, cuda: Cuda, network: bytes) -> None:
        self.cuda = cuda
        self.session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
        self._tensors = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, i):
        return self._tensors[i].name

    def get_tensor_mode(self, name):
        return "in" if name in [i.name for i in self.session.get_inputs()] else "out"

    def get_tensor_shape(self, name):
        tensor = next(t for t in self._tensors if t.name == name)
        return tuple(e if isinstance(e, int) else -1 for e in tensor.shape)

    def get_tensor_dtype(self, name):
        return "float32"

    def create_execution_context(self):
        return Context(self) if self.cuda.room else None


class Logger:
    """Says nothing."""

    ERROR = 1

    def __init__(self, level: int) -> None:
        pass


def tensorrt(cuda: Cuda, name: str = "fake_tensorrt", refused: bytes = b"") -> SimpleNamespace:
    """The package, which does not load the engine `refused`."""
    def deserialize(network):
        return None if network == refused else Engine(cuda, network)

    return SimpleNamespace(
        __name__=name,
        __version__="1",
        Logger=Logger,
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=deserialize),
        TensorIOMode=SimpleNamespace(INPUT="in"),
        nptype=lambda kind: np.float32,
    )
