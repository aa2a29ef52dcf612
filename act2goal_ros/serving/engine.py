"""TensorRT engines: built from ONNX, here or (TensorRT for RTX) ahead of time for other GPUs, and kept in a cache.

Both of NVIDIA's packages have the same interface: `tensorrt` (Jetson and data-centre GPUs; builds on the GPU it builds for)
and `tensorrt_rtx` (RTX cards; builds without a GPU).
"""

import contextlib
import hashlib
import importlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from act2goal_ros.serving import PRECISIONS
from act2goal_ros.serving.runner import BackendError

LIBRARIES = ("tensorrt", "tensorrt_rtx")
LARGEST = 64  # of an extent that the network leaves open
FORMAT = 3  # 3: IN_HALF alone
IN_HALF = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # of a network: products, as torch's autocast. All else in half: 16 times as far off

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What an engine is made for. capability: a GPU's compute capability, as in SM89; device: its model, where engines are for one."""

    library: str
    version: str
    capability: str
    precision: str
    device: str = ""


def library(names: Sequence[str] = LIBRARIES) -> ModuleType:
    """The first of the packages that imports. BackendError naming what each of them lacks."""
    problems = []
    for name in names:
        try:
            module = importlib.import_module(name)
            getattr(module, "Builder")  # noqa: B009 - an empty package of that name imports too
        except (ImportError, AttributeError, OSError) as error:
            problems.append(f"{name}: {error}")
        else:
            return module
    raise BackendError("no TensorRT here (" + "; ".join(problems) + ")")


def build(network: bytes, target: Target) -> bytes:
    """The engine of an ONNX network. BackendError when the package cannot build it, with what the package says."""
    trt = library((target.library,))
    if target.precision not in PRECISIONS:
        raise BackendError(f"precision '{target.precision}' is not one of {', '.join(PRECISIONS)}")
    logger = _logger(trt)
    builder = trt.Builder(logger)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # the ONNX types are the engine's
    definition = builder.create_network(flags)
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(with_precision(network, target.precision)):
        raise BackendError("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    _aim(trt, config, target.capability)
    if profile := _profile(builder, definition):
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(definition, config)
    if engine is None:
        raise BackendError(f"{target.library} {target.version} built no engine: {logger.said()}")
    return bytes(engine)


def with_precision(network: bytes, precision: str) -> bytes:
    """The ONNX network with its IN_HALF in that precision; all else, inputs and outputs stay float32."""
    if precision == "float32":
        return network
    try:
        import onnx
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel
    except ImportError as error:
        raise BackendError(f"{precision} engines are built with the package onnx: {error}") from error
    model = onnx.load_from_string(network)
    others = {node.op_type for node in model.graph.node}.difference(IN_HALF)
    own = {node.name for node in model.graph.node}
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *others])
    _straighten(model, own)
    graph = OnnxModel(model)
    graph.prune_graph()
    graph.topological_sort()  # the converter appends casts of inputs
    if precision == "bfloat16":
        _to_bfloat16(model)
    return bytes(model.SerializeToString())


def _straighten(model: Any, own: set[str]) -> None:
    """Where the converter rounds a float32 value only to make float32 of it again, the value itself is taken.

    It does so between operators that stay in float32 and after every input; `own` are the nodes there were before it, by name.
    """
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.name not in own}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = casts.get(casts.get(name, ""), name)


def _to_bfloat16(model: Any) -> None:
    """Makes every float16 of an ONNX model without inner graphs a bfloat16: constants, casts, declared types."""
    import ml_dtypes
    import onnx

    half, brain = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16

    def change(tensor: Any) -> None:
        if tensor.data_type == half:
            values = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    graph = model.graph
    for tensor in graph.initializer:
        change(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = brain
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                change(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == half:
                attribute.i = brain


def _aim(trt: ModuleType, config: Any, capability: str) -> None:
    """Ahead of time for a GPU that need not be there, where the package can."""
    known = getattr(trt, "ComputeCapability", None)
    if known is None:
        return
    if capability not in known.__members__:
        there_are = ", ".join(sorted(name for name in known.__members__ if name.startswith("SM")))
        raise BackendError(f"{trt.__name__} {trt.__version__} does not build for {capability}, but for {there_are}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(known.__members__[capability], 0)


def _profile(builder: Any, definition: Any) -> Any:
    """Bounds of the extents that the network leaves open; None when it leaves none."""
    profile = None
    for tensor in (definition.get_input(i) for i in range(definition.num_inputs)):
        shape = tuple(tensor.shape)
        if -1 in shape:
            profile = profile or builder.create_optimization_profile()
            least, most = ([bound if extent < 0 else extent for extent in shape] for bound in (1, LARGEST))
            profile.set_shape(tensor.name, least, least, most)
    return profile


def _logger(trt: ModuleType) -> Any:
    class Logger(trt.ILogger):  # type: ignore[name-defined]
        """Keeps what goes wrong."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.lines.append(message)

        def said(self) -> str:
            return self.lines[-1] if self.lines else "it does not say why"

    return Logger()


class EngineCache:
    """Engines on disk, each under a header that names its target, its network and its own SHA-256."""

    def __init__(self, folder: Path | None = None) -> None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        self.folder = folder or home / "act2goal" / "engines"

    def get(self, network: Path, target: Target) -> bytes:
        """The engine, from the cache or built now; one that is damaged or made for something else is built anew."""
        found = self.find(network, target)
        return self.make(network, target) if found is None else found

    def find(self, network: Path, target: Target) -> bytes | None:
        """The engine that is there; None, with a warning, where it is damaged or made for something else."""
        wanted = self._header(network, target)
        path = self._place(network, wanted)
        try:
            return self._read(path, wanted)
        except (ValueError, OSError) as error:
            log.warning("%s: %s; building it anew", path, error)
            return None

    def make(self, network: Path, target: Target) -> bytes:
        """The engine, built now and kept in place of the one there is. Where it cannot be kept it is given nevertheless, with a warning."""
        wanted = self._header(network, target)
        path, engine = self._place(network, wanted), build(network.read_bytes(), target)
        try:
            self._write(path, wanted, engine)
        except OSError as error:
            log.warning("%s cannot be kept, it is built at every start: %s", path, error)
        return engine

    def remove(self, network: Path, target: Target) -> None:
        """Forgets an engine that the GPU refuses, as far as the folder lets it."""
        with contextlib.suppress(OSError):
            self.path(network, target).unlink(missing_ok=True)

    def path(self, network: Path, target: Target) -> Path:
        """Where the engine of that network and target lies."""
        return self._place(network, self._header(network, target))

    def headers(self) -> dict[Path, dict[str, Any]]:
        """What the cache holds; an empty header where it is damaged."""
        return {path: self._looked_at(path) for path in sorted(self.folder.glob("*.engine"))}

    def _looked_at(self, path: Path) -> dict[str, Any]:
        try:
            return self._split(path)[0]
        except ValueError:
            return {}

    def _header(self, network: Path, target: Target) -> dict[str, Any]:
        return {"format": FORMAT, "network": hashlib.sha256(network.read_bytes()).hexdigest(), **asdict(target)}

    def _place(self, network: Path, header: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{network.stem}-{header['capability'].lower()}-{header['precision']}-{digest[:16]}.engine"

    def _read(self, path: Path, wanted: dict[str, Any]) -> bytes | None:
        """None when there is none; ValueError when it is not what it should be."""
        if not path.exists():
            return None
        header, engine = self._split(path)
        if header != wanted:
            differing = ", ".join(f"{key} {header.get(key)!r}" for key in wanted if header.get(key) != wanted[key])
            raise ValueError(f"made for something else: {differing}")
        return engine

    def _split(self, path: Path) -> tuple[dict[str, Any], bytes]:
        """What the engine was made for, and the engine; ValueError when it is damaged."""
        head, _, engine = path.read_bytes().partition(b"\n")
        try:
            header = json.loads(head)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise ValueError("damaged: no header")
        found, digest = hashlib.sha256(engine).hexdigest(), header.pop("sha256", None)
        if found != digest:
            raise ValueError(f"damaged: SHA-256 is {found}, its header says {digest}")
        return header, engine

    def _write(self, path: Path, header: dict[str, Any], engine: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        head = json.dumps(header | {"sha256": hashlib.sha256(engine).hexdigest()})
        draft.write_bytes(head.encode() + b"\n" + engine)
        draft.replace(path)
