"""Backends: which one serves and why not the others, what they are held to, and TensorRT's engines."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from queue import Queue
from types import ModuleType

import fake_gpu
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from act2goal_ros import paths
from act2goal_ros.cli import engine as engine_command
from act2goal_ros.control.executive import Request
from act2goal_ros.control.inference import InferenceWorker, Job
from act2goal_ros.control.joints import JointReading
from act2goal_ros.control.planbook import Plan
from act2goal_ros.serving import PREFERRED, backends, engine, tensorrt
from act2goal_ros.serving.adapter import Adapter, lora_inputs
from act2goal_ros.serving.backends import make_runner, serve
from act2goal_ros.serving.bundle import MANIFEST, NETWORKS, ModelBundle, file_hash
from act2goal_ros.serving.policy import GoalPolicy, Proprio
from act2goal_ros.serving.reference import FILE, TOLERANCE, Reference
from act2goal_ros.serving.runner import BackendError, OnnxRunner, Runner

MODEL = paths.model("act2goal-tiny")
SMALL = MODEL / "distance.onnx"


def _gpu_here() -> bool:
    try:
        tensorrt.cuda()
    except BackendError:
        return False
    return True


without_gpu = pytest.mark.skipif(_gpu_here(), reason="a GPU is here")


@pytest.fixture
def rtx():
    """TensorRT for RTX, where its package can be had."""
    return pytest.importorskip("tensorrt_rtx")


def target(version: str = "1.7.1.116", capability: str = "SM89", precision: str = "float32") -> engine.Target:
    return engine.Target("tensorrt_rtx", version, capability, precision)


@without_gpu
def test_auto_takes_the_best_that_works_and_says_why_not_the_others() -> None:
    served = serve(MODEL, ("distance",))
    assert served.backend == served.runners["distance"].backend == "onnxruntime"
    assert list(served.passed_over) == ["tensorrt", "onnxruntime_tensorrt", "onnxruntime_cuda"]
    assert "no NVIDIA GPU" in served.passed_over["tensorrt"]
    assert "has no CUDAExecutionProvider; onnxruntime-gpu has" in served.passed_over["onnxruntime_cuda"]
    assert str(served).startswith("backend onnxruntime; not tensorrt: ")


@without_gpu
@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime_tensorrt", "onnxruntime_cuda"])
def test_a_backend_that_is_not_here_is_refused_with_the_reason(backend: str) -> None:
    with pytest.raises(BackendError, match=f"backend '{backend}' cannot serve act2goal-tiny: .*NVIDIA GPU"):
        serve(MODEL, ("distance",), backend)


@pytest.mark.parametrize("error", [RuntimeError("driver too old"), OSError("no such device"), AttributeError("no attribute 'x'")])
def test_auto_goes_on_whatever_a_backend_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def make(path: Path, backend: str, threads: int, precision: str) -> OnnxRunner:
        if backend == "tensorrt":
            raise error
        return make_runner(path, backend, threads)

    monkeypatch.setattr(backends, "make_runner", make)
    served = serve(MODEL, ("encode", "distance"))
    assert served.backend != "tensorrt"
    assert served.passed_over["tensorrt"] == f"encode: {type(error).__name__}: {error}"
    with pytest.raises(BackendError, match=f"backend 'tensorrt' cannot serve act2goal-tiny: encode: {type(error).__name__}"):
        serve(MODEL, ("encode",), "tensorrt")


def test_a_network_of_other_inputs_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "model")
    shutil.copy(folder / "encode.onnx", folder / "distance.onnx")
    with pytest.raises(BackendError, match=r"cannot serve model: distance: ValueError: missing inputs \['pictures'\]"):
        serve(folder, ("encode", "distance"), "onnxruntime")


@pytest.mark.parametrize(("network", "name"), [("distance", "goal"), ("tick", "velocities")])
def test_an_input_of_another_shape_is_named(tmp_path: Path, network: str, name: str) -> None:
    """It leaves the input's last column away: all else would fit."""
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(MODEL, tmp_path / "model")
    model = onnx.load(folder / f"{network}.onnx")
    for node in model.graph.node:
        node.input[:] = ["cut" if each == name else each for each in node.input]
    bounds = {"from": [0], "to": [-1], "axis": [-1]}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.array(value), key) for key, value in bounds.items())
    model.graph.node.insert(0, onnx.helper.make_node("Slice", [name, *bounds], ["cut"]))
    next(value for value in model.graph.input if value.name == name).type.tensor_type.shape.dim[-1].dim_value += 1
    onnx.save(model, folder / f"{network}.onnx")
    given = Reference(MODEL).inputs(network)[name].shape
    takes = (*given[:-1], given[-1] + 1)
    told = f"cannot serve model: {network}: ValueError: input '{name}' has shape {given}, the network takes {takes}"
    with pytest.raises(BackendError, match=re.escape(told)):
        serve(folder, ("encode", network), "onnxruntime")


def test_an_output_of_another_shape_is_named(tmp_path: Path) -> None:
    """Its numbers are right: beside torch's they would be taken for equal, one against all."""
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(MODEL, tmp_path / "model")
    model = onnx.load(folder / "distance.onnx")
    output = model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axes"))
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", ["before", "axes"], [output.name]))
    output.type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
    onnx.save(model, folder / "distance.onnx")
    runner, reference = make_runner(folder / "distance.onnx"), Reference(folder)
    assert reference.difference("distance", runner) == float("inf")
    expected = make_runner(SMALL)(reference.inputs("distance"))["log_steps"]
    np.testing.assert_array_equal(runner(reference.inputs("distance"))["log_steps"], expected[None])
    told = f"cannot serve model: distance: output 'log_steps' has shape {(1, *expected.shape)}, torch's has {expected.shape}"
    with pytest.raises(BackendError, match=re.escape(told)):
        serve(folder, ("encode", "distance"), "onnxruntime")


def test_a_provider_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu names its providers although the machine has no GPU, and takes the CPU's instead."""
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    start = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda source, options, providers: start(source, options, providers=names[1:]))
    with pytest.raises(BackendError, match="CUDAExecutionProvider does not start here: ONNX Runtime took CPUExecutionProvider instead"):
        make_runner(SMALL, "onnxruntime_cuda")


@pytest.fixture
def sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str | bool]]]:
    """Providers and options of every session, of an ONNX Runtime that says it has TensorRT and computes on the CPU; an empty cache."""
    started: list[tuple[str, dict[str, str | bool]]] = []
    start = onnxruntime.InferenceSession

    class Session:
        def __init__(self, source, options, providers) -> None:
            started.extend(providers)
            self._providers = [name for name, _ in providers]
            self._session = start(source, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return self._providers

        def __getattr__(self, name: str):
            return getattr(self._session, name)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*backends.PROVIDERS.values()])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return started


@pytest.mark.parametrize(
    ("precision", "half"), [("float32", {}), ("float16", {"trt_fp16_enable": True}), ("bfloat16", {"trt_bf16_enable": True})]
)
def test_onnx_runtime_s_tensorrt_is_told_the_precision_and_where_engines_are_kept(tmp_path: Path, sessions, precision: str, half) -> None:
    runner = make_runner(SMALL, "onnxruntime_tensorrt", 1, precision)
    assert (runner.backend, runner.precision) == ("onnxruntime_tensorrt", precision)
    folder = tmp_path / "cache" / "act2goal" / "engines" / "onnxruntime"
    assert folder.is_dir()  # the provider makes one folder, none above it
    prefix = f"distance-{precision}-{file_hash(SMALL)[:16]}"
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder), "trt_engine_cache_prefix": prefix}
    assert sessions == [("TensorrtExecutionProvider", half | kept)]
    changed = tmp_path / "distance.onnx"
    changed.write_bytes(SMALL.read_bytes() + b"\x72\x00")  # an empty field of metadata
    make_runner(changed, "onnxruntime_tensorrt", 1, precision)
    assert sessions[1][1]["trt_engine_cache_prefix"] not in ("", prefix)


def test_the_other_providers_compute_in_float32_and_are_told_nothing(tmp_path: Path, sessions) -> None:
    for backend in ("onnxruntime_cuda", "onnxruntime"):
        assert make_runner(SMALL, backend, 1, "float16").precision == "float32"
    assert sessions == [("CUDAExecutionProvider", {}), ("CPUExecutionProvider", {})] and not (tmp_path / "cache").exists()


def test_onnx_runtime_s_tensorrt_is_held_to_its_precision(tmp_path: Path, sessions) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "model")
    with np.load(folder / FILE) as file:
        arrays = dict(file)
    expected = arrays["distance/out/log_steps"]
    arrays["distance/out/log_steps"] = expected + np.float32(0.005 * max(1.0, np.abs(expected).max()))
    np.savez(folder / FILE, **arrays)
    assert serve(folder, ("distance",), "onnxruntime_tensorrt", precision="float16").backend == "onnxruntime_tensorrt"
    with pytest.raises(BackendError, match=r"distance differs from torch float32 by 0.005 of its range, at most 0.001 allowed"):
        serve(folder, ("distance",), "onnxruntime_tensorrt", precision="float32")
    with pytest.raises(BackendError, match="precision 'int4' is not one of float32, float16, bfloat16"):
        serve(folder, ("distance",), "onnxruntime_tensorrt", precision="int4")


def test_onnx_runtime_s_tensorrt_serves_where_no_engine_can_be_kept(tmp_path: Path, sessions, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").touch()
    make_runner(SMALL, "onnxruntime_tensorrt", 1, "float16")
    assert sessions == [("TensorrtExecutionProvider", {"trt_fp16_enable": True})]
    assert "onnxruntime cannot be made, engines are built at every start: " in caplog.text


def test_where_there_is_no_such_provider_nothing_is_made_for_it(tmp_path: Path, sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendError, match="has no TensorrtExecutionProvider; onnxruntime-gpu has"):
        make_runner(SMALL, "onnxruntime_tensorrt")
    assert not sessions and not (tmp_path / "cache").exists()


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match="'tpu' is not one of auto, tensorrt, onnxruntime_tensorrt, onnxruntime_cuda, onnxruntime"):
        serve(MODEL, ("distance",), "tpu")


def test_the_shipped_networks_compute_what_torch_did() -> None:
    reference = Reference(MODEL)
    for network in NETWORKS:
        difference = reference.difference(network, make_runner(MODEL / f"{network}.onnx"))
        assert 0 <= difference < TOLERANCE["float32"]


def test_what_was_given_once_is_kept_and_what_came_out_is_not_overwritten() -> None:
    runner, inputs = make_runner(MODEL / "distance.onnx"), dict(Reference(MODEL).inputs("distance"))
    first = runner(inputs)["log_steps"]
    kept = first.copy()
    inputs["goal"] = inputs["goal"] + 1.0
    second = runner(inputs)["log_steps"]  # `current` is the same object: it is not copied again
    assert not np.array_equal(second, kept) and np.array_equal(first, kept)
    assert np.array_equal(second, make_runner(MODEL / "distance.onnx")(inputs)["log_steps"])
    with pytest.raises(ValueError, match="missing inputs"):
        runner({"current": inputs["current"]})


def test_a_backend_that_computes_something_else_does_not_serve(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "model")
    with np.load(folder / FILE) as file:
        arrays = dict(file)
    arrays["distance/out/log_steps"] = arrays["distance/out/log_steps"] + np.float32(0.1)
    np.savez(folder / FILE, **arrays)
    with pytest.raises(BackendError, match="distance differs from torch float32 by 0.*, at most 0.001 allowed"):
        serve(folder, ("encode", "distance"), "onnxruntime")
    assert serve(folder, ("encode",), "onnxruntime").backend == "onnxruntime"


def test_the_time_to_goal_is_not_told_by_a_network_that_was_changed(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(MODEL, tmp_path / "model")
    model = onnx.load(folder / "distance.onnx")
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT:
            weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * np.float32(1.1), weights.name))
    onnx.save(model, folder / "distance.onnx")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["distance.onnx"] = file_hash(folder / "distance.onnx")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    given = Reference(MODEL).inputs("distance")
    assert ModelBundle.load(MODEL).time_to_goal(given["current"][0], given["goal"][0]) > 0
    with pytest.raises(BackendError, match="cannot serve model: distance differs from torch float32 by 0.*, at most 0.001 allowed"):
        ModelBundle.load(folder).time_to_goal(given["current"][0], given["goal"][0])


# one tick, one network


class Noting:
    """A runner that notes each of its runs."""

    def __init__(self, name: str, runner: Runner, runs: list[str]) -> None:
        self.backend, self.precision, self._name, self._runner, self._runs = runner.backend, runner.precision, name, runner, runs

    def __call__(self, inputs):
        self._runs.append(self._name)
        return self._runner(inputs)


@pytest.fixture
def noted() -> tuple[GoalPolicy, list[str]]:
    """The shipped policy, and the names of the networks it has run."""
    runs: list[str] = []
    config, served = ModelBundle.load(MODEL).config, serve(MODEL, ("encode", "plan_keys", "tick"), "onnxruntime")
    runners = {name: Noting(name, runner, runs) for name, runner in served.runners.items()}
    return GoalPolicy(config, replace(served, runners=runners)), runs


PICTURE = np.full((128, 128, 3), 128, np.uint8)


def test_a_tick_is_one_run_of_one_network(noted: tuple[GoalPolicy, list[str]]) -> None:
    policy, runs = noted
    c = policy.config
    keys = policy.set_plan(np.zeros(c.served_features, np.float32))
    assert runs == ["plan_keys"]
    proprio = Proprio(np.zeros(c.joints), np.zeros(c.joints), 0.0)
    matrices = {name: np.full(shape, 0.01, np.float32) for name, shape in lora_inputs(c).items()}
    for prefix, adapter in ((None, None), (np.zeros((3, c.action_size)), None), (None, Adapter("a", matrices)), (None, None)):
        runs.clear()
        policy.set_adapter(adapter)
        frame = policy.observe(PICTURE)
        assert runs == [], "a picture is encoded when its latent is asked for"
        policy.act(keys, frame, proprio, np.ones(c.frames, bool), np.arange(1.0, c.frames + 1), prefix)
        assert runs == ["tick"]
        assert frame.latent is frame.latent and runs == ["tick", "encode"]


def test_at_work_a_plan_s_keys_are_computed_once_and_each_job_ticks_once(noted: tuple[GoalPolicy, list[str]]) -> None:
    policy, runs = noted
    c, done, faults = policy.config, Queue(), []
    worker = InferenceWorker(policy, done.put, lambda _: None, faults.append)
    reading, times = JointReading(10.0, np.zeros(c.joints), np.zeros(c.joints), 0.0), 10.0 + np.arange(1.0, c.frames + 1)
    for plan_id, ticks in (("p1", 3), ("p2", 2), ("p1", 1)):
        features = np.full(c.served_features, float(plan_id[1]), np.float32)
        for _ in range(ticks):
            plan = Plan(plan_id, 9.0, features.copy(), times, np.ones(c.frames, bool), 11.0)  # every time as if it had just come
            worker.submit(Job(10.0, PICTURE, Request(1, 10.0, reading, plan, None)))
            done.get(timeout=30.0)
    worker.close()
    first, other = ["plan_keys", "tick", "encode"], ["tick", "encode"]
    assert faults == [] and runs == first + 2 * other + first + other + other


TOLD = ("pictures", "keys", "values", "frame_mask", "frame_times", "joints", "velocities", "gripper", "given_mask")


def test_the_policy_is_told_nothing_of_the_goal_but_by_the_plan() -> None:
    """Keys and values are made of a plan's features alone: those of the imagined frames, and where things are in these."""
    inputs = {name for name in Reference(MODEL).inputs("tick") if not name.startswith("blocks.")}  # these are an adapter's
    assert inputs == {*TOLD, "given", "row_times"}
    assert set(Reference(MODEL).inputs("plan_keys")) == {"features"}


@pytest.mark.parametrize("name", TOLD)
def test_what_the_arm_does_depends_on_every_input(name: str) -> None:
    runner, given = make_runner(MODEL / "tick.onnx"), Reference(MODEL).inputs("tick")
    changed = given | {name: 1.0 - given[name] if name.endswith("mask") else given[name] + np.float32(0.2)}

    def moved(inputs: dict[str, np.ndarray]) -> np.ndarray:
        """From where the arm is; the last column is the gripper's."""
        return runner(inputs)["actions"] - np.append(inputs["joints"], 0.0).astype(np.float32)

    assert np.abs(moved(changed) - moved(given)).max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_stays_close(network: str, precision: str) -> None:
    """Half of what is allowed at most: pictures of cameras are not the export's random ones."""
    onnx = pytest.importorskip("onnx")
    from rounded import rounded

    made = engine.with_precision((MODEL / f"{network}.onnx").read_bytes(), precision)
    onnx.checker.check_model(onnx.load_from_string(made), full_check=precision == "float16")  # of bfloat16 it does not know all
    difference = Reference(MODEL).difference(network, OnnxRunner(made if precision == "float16" else rounded(made)))
    exact = Reference(MODEL).difference(network, OnnxRunner(MODEL / f"{network}.onnx"))
    assert 10 * exact < difference < TOLERANCE[precision] / 2, "it is rounded, and close"


# torch, which a robot does not have


def test_torch_serves_what_was_trained_and_auto_never_takes_it() -> None:
    pytest.importorskip("torch")
    served, reference = serve(MODEL, NETWORKS, "torch"), Reference(MODEL)
    for name, runner in served.runners.items():
        assert runner.backend == "torch" and reference.difference(name, runner) < TOLERANCE["float32"]
    assert "torch" not in PREFERRED
    with pytest.raises(ValueError, match="missing inputs .*'offsets'"):
        served.runners["imagine"]({})
    with pytest.raises(ValueError, match="input 'current' has shape"):
        served.runners["distance"](reference.inputs("distance") | {"current": np.zeros((1, 2), np.float32)})
    assert len(served.runners["decode"]({"latents": np.repeat(reference.inputs("decode")["latents"], 3, 0)})["pictures"]) == 6


def test_without_torch_or_weights_the_backend_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torch"):
        (tmp_path / "distance.onnx").write_bytes(SMALL.read_bytes())
        with pytest.raises(BackendError, match="no weights .*weights.safetensors"):
            make_runner(tmp_path / "distance.onnx", "torch")
    monkeypatch.setitem(sys.modules, "act2goal_ros.serving.torch_runner", None)
    with pytest.raises(BackendError, match="backend 'torch' cannot serve act2goal-tiny: .*it needs requirements/train.txt and torch.txt"):
        serve(MODEL, ("distance",), "torch")


# engines: NVIDIA's own library, without a GPU


@pytest.mark.parametrize(
    ("network", "precision"),
    [("distance", "float32"), ("distance", "float16"), ("decode", "float32"), ("decode", "float16"), ("tick", "float16"),
     ("distance", "bfloat16"), ("imagine", "bfloat16")],
)  # fmt: skip, decode leaves its number of frames open; the tick takes a minute
def test_engines_are_built_ahead_of_time(rtx, network: str, precision: str) -> None:
    if precision != "float32":
        pytest.importorskip("onnx")
    made = engine.build((MODEL / f"{network}.onnx").read_bytes(), target(precision=precision))
    assert made[:4] == b"vtrt" and int.from_bytes(made[16:24], "little") == len(made) > 100_000  # as its header says
    other = engine.build((MODEL / f"{network}.onnx").read_bytes(), target(capability="SM120", precision=precision))
    assert other != made


def test_what_cannot_be_built_is_said(rtx) -> None:
    with pytest.raises(BackendError, match="does not build for SM90, but for .*SM120.*SM89"):
        engine.build(SMALL.read_bytes(), target(capability="SM90"))
    with pytest.raises(BackendError, match="(?i)parse|onnx"):
        engine.build(b"no network", target())
    with pytest.raises(BackendError, match="precision 'int4' is not one of float32, float16, bfloat16"):
        engine.build(SMALL.read_bytes(), target(precision="int4"))


def test_a_missing_library_is_named() -> None:
    with pytest.raises(BackendError, match="no TensorRT here .*no_such_tensorrt"):
        engine.library(("no_such_tensorrt",))
    with pytest.raises(BackendError, match="json: module 'json' has no attribute 'Builder'"):
        engine.library(("json",))


def test_a_package_that_builds_for_the_gpu_at_hand_only_is_not_aimed() -> None:
    """`tensorrt` has no ComputeCapability, `tensorrt_rtx` has."""
    config = object()  # which would refuse anything set on it
    engine._aim(ModuleType("tensorrt"), config, "SM90")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[engine.Target]:
    """Which engines were built; what is built is short."""
    targets: list[engine.Target] = []

    def build(network: bytes, wanted: engine.Target) -> bytes:
        targets.append(wanted)
        return f"engine {len(targets)}\n".encode() + network[:100]

    monkeypatch.setattr(engine, "build", build)
    return targets


def test_an_engine_is_built_once_for_each_target(tmp_path: Path, built: list[engine.Target]) -> None:
    cache = engine.EngineCache(tmp_path)
    wanted = [target(), target(version="1.8"), target(capability="SM120"), target(precision="float16"), replace(target(), device="Orin")]
    first = [cache.get(SMALL, each) for each in wanted]
    assert built == wanted
    assert [cache.get(SMALL, each) for each in wanted] == first and built == wanted
    changed = tmp_path / "distance.onnx"
    changed.write_bytes(SMALL.read_bytes() + b"x")
    cache.get(changed, target())
    assert len(built) == 6 and len(cache.headers()) == 6


@pytest.mark.parametrize("damage", ["flip", "cut", "headless", "foreign", "list"])
def test_a_damaged_or_foreign_engine_is_rebuilt_and_never_loaded(tmp_path: Path, built: list[engine.Target], damage: str) -> None:
    cache = engine.EngineCache(tmp_path)
    good = cache.get(SMALL, target())
    path = cache.path(SMALL, target())
    head, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes({
        "flip": head + b"\n" + body[:-1] + bytes([body[-1] ^ 1]),
        "cut": head + b"\n" + body[:-1],
        "headless": body,
        "foreign": json.dumps(json.loads(head) | {"capability": "SM120"}).encode() + b"\n" + body,
        "list": b"[]\n" + body,
    }[damage])  # fmt: skip
    found = cache.get(SMALL, target())
    assert len(built) == 2 and found.startswith(b"engine 2") and found != good
    assert cache.get(SMALL, target()) == found and len(built) == 2
    assert not list(tmp_path.glob("*.[0-9]*"))


def test_an_engine_that_cannot_be_kept_serves_nevertheless(
    tmp_path: Path, built: list[engine.Target], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = engine.EngineCache(tmp_path / "file" / "engines")
    assert cache.get(SMALL, target()).startswith(b"engine 1") and cache.get(SMALL, target()).startswith(b"engine 2")
    assert "cannot be kept, it is built at every start: " in caplog.text


def test_the_command_builds_and_lists(rtx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for network in NETWORKS:
        shutil.copy(SMALL, model / f"{network}.onnx")
    folder = ["--folder", str(tmp_path / "cache")]
    arguments = ["build", str(model), "--gpu", "SM89", "--precision", "float32", *folder]
    outcome = CliRunner().invoke(engine_command.command, arguments)
    assert outcome.exit_code == 0, outcome.output
    next(iter(sorted((tmp_path / "cache").iterdir()))).write_bytes(b"{}")
    listed = CliRunner().invoke(engine_command.command, ["list", *folder]).output
    assert listed.count(f"tensorrt_rtx {rtx.__version__} SM89 float32") == len(NETWORKS) - 1
    assert listed.count("damaged: will be built anew") == 1
    refused = CliRunner().invoke(engine_command.command, [*arguments[:2], "--gpu", "SM90", *folder])
    assert refused.exit_code == 1 and "does not build for SM90" in refused.output


@pytest.mark.parametrize(("package", "device"), [("tensorrt", "Fake 4090"), ("tensorrt_rtx", "")])
def test_an_engine_belongs_to_the_gpu_s_model_or_for_rtx_to_its_capability(
    tmp_path: Path, built: list[engine.Target], monkeypatch: pytest.MonkeyPatch, package: str, device: str
) -> None:
    cuda = fake_gpu.Cuda()
    monkeypatch.setattr(tensorrt, "cuda", lambda: cuda)
    monkeypatch.setattr(engine, "library", lambda: fake_gpu.tensorrt(cuda, package))
    folder = ["--folder", str(tmp_path)]
    outcome = CliRunner().invoke(engine_command.command, ["build", str(MODEL), *folder])
    assert outcome.exit_code == 0, outcome.output
    assert built == len(NETWORKS) * [engine.Target(package, "1", "SM89", "float16", device)]
    assert [header["device"] for header in engine.EngineCache(tmp_path).headers().values()] == len(NETWORKS) * [device]
    listed = CliRunner().invoke(engine_command.command, ["list", *folder]).output
    assert listed.count(f"  {package} 1 SM89 float16{device and f' {device}'}  0.0 MB") == len(NETWORKS)


@without_gpu
def test_the_bench_times_what_works_and_names_what_does_not() -> None:
    outcome = CliRunner().invoke(engine_command.command, ["bench", "--runs", "10"])
    assert outcome.exit_code == 0, outcome.output
    assert "onnxruntime  tick                p50" in outcome.output
    assert "backend 'onnxruntime_cuda' cannot serve act2goal-tiny" in outcome.output


# how an engine is fed and run, with a GPU that is not one


@pytest.mark.parametrize("network", ["distance", "tick", "decode"])
def test_what_the_gpu_computes_comes_back(network: str) -> None:
    cuda = fake_gpu.Cuda()
    runner = tensorrt.TensorRTRunner((MODEL / f"{network}.onnx").read_bytes(), fake_gpu.tensorrt(cuda), cuda, "float32")
    reference = Reference(MODEL)
    for _ in range(3):
        reference.check(network, runner)
    assert cuda.launches == (0 if network == "decode" else 2)  # with an open extent there is no graph; else from the second run on
    inputs = {name: value + np.float32(0.1) for name, value in reference.inputs(network).items()}
    expected = OnnxRunner(MODEL / f"{network}.onnx")(inputs)
    found = runner(inputs)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    del runner
    assert not cuda.memory and not cuda.handles


def test_only_what_has_changed_goes_to_the_gpu() -> None:
    cuda = fake_gpu.Cuda()
    runner = tensorrt.TensorRTRunner((MODEL / "tick.onnx").read_bytes(), fake_gpu.tensorrt(cuda), cuda, "float32")
    inputs = dict(Reference(MODEL).inputs("tick"))
    for _ in range(3):
        runner(inputs)
    assert cuda.uploads == len(inputs)
    inputs["joints"] = inputs["joints"] + np.float32(0.1)
    found = runner(inputs)["actions"]
    assert cuda.uploads == len(inputs) + 1
    np.testing.assert_allclose(found, OnnxRunner(MODEL / "tick.onnx")(inputs)["actions"], atol=1e-5)


def test_an_adapter_s_matrices_alone_go_to_the_gpu_when_it_is_swapped() -> None:
    cuda = fake_gpu.Cuda()
    runner = tensorrt.TensorRTRunner((MODEL / "tick.onnx").read_bytes(), fake_gpu.tensorrt(cuda), cuda, "float32")
    inputs, config = dict(Reference(MODEL).inputs("tick")), ModelBundle.load(MODEL).config
    before = [runner(inputs)["actions"] for _ in range(2)][-1]
    matrices = {name: np.full(shape, 0.02, np.float32) for name, shape in lora_inputs(config).items()}
    uploads = cuda.uploads
    found = runner(inputs | matrices)["actions"]
    assert cuda.uploads == uploads + len(matrices) and cuda.launches == 2, "by the same graph"
    np.testing.assert_allclose(found, OnnxRunner(MODEL / "tick.onnx")(inputs | matrices)["actions"], atol=1e-4)
    assert np.abs(found - before).max() > 1e-3
    np.testing.assert_array_equal(runner(inputs)["actions"], before)


def test_other_numbers_of_frames_fit_and_too_many_are_refused() -> None:
    cuda = fake_gpu.Cuda()
    runner = tensorrt.TensorRTRunner((MODEL / "decode.onnx").read_bytes(), fake_gpu.tensorrt(cuda), cuda, "float32")
    latents = Reference(MODEL).inputs("decode")["latents"]
    for count in (5, 1):
        frames = np.repeat(latents[:1], count, axis=0)
        assert runner({"latents": frames})["pictures"].shape[0] == count
    with pytest.raises(ValueError, match=r"'latents' has shape \(65, .* at most 64"):
        runner({"latents": np.repeat(latents[:1], 65, axis=0)})


def test_a_wrong_shape_and_a_lost_gpu_are_named() -> None:
    cuda = fake_gpu.Cuda()
    runner = tensorrt.TensorRTRunner(SMALL.read_bytes(), fake_gpu.tensorrt(cuda), cuda, "float32")
    inputs = Reference(MODEL).inputs("distance")
    with pytest.raises(ValueError, match="'current' has shape .*, the network takes"):
        runner(inputs | {"current": inputs["current"][:, :4]})
    with pytest.raises(ValueError, match=r"missing inputs \['goal'\]"):
        runner({"current": inputs["current"]})
    cuda.lost = True
    with pytest.raises(BackendError, match="CUDA: cudaErrorDeviceLost"):
        runner(inputs)


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (0, "cannot prepare the engine on this GPU; its memory may be full"),
        (2, "cudaErrorMemoryAllocation, allocating 4352 bytes of pinned memory"),
        (3, "cudaErrorMemoryAllocation, allocating 4352 bytes of the GPU's memory"),
    ],
)
def test_a_full_gpu_is_named_and_gets_back_what_was_taken(monkeypatch: pytest.MonkeyPatch, room: int, told: str) -> None:
    cuda = fake_gpu.Cuda(room)

    def runner(network: Path, precision: str) -> tensorrt.TensorRTRunner:
        return tensorrt.TensorRTRunner(network.read_bytes(), fake_gpu.tensorrt(cuda), cuda, precision)

    monkeypatch.setattr(tensorrt, "runner", runner)
    served = serve(MODEL, ("distance",))
    assert served.backend == "onnxruntime" and told in served.passed_over["tensorrt"]
    assert not cuda.memory and not cuda.handles


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """An empty cache, a GPU that loads networks but not REFUSED, and what is built on it, the next one first."""
    cuda, builds = fake_gpu.Cuda(), []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tensorrt, "cuda", lambda: cuda)
    monkeypatch.setattr(tensorrt, "library", lambda: fake_gpu.tensorrt(cuda, refused=REFUSED))
    monkeypatch.setattr(engine, "build", lambda network, wanted: builds.pop(0))
    return builds


REFUSED = b"of another driver"


def test_a_kept_engine_the_gpu_refuses_is_built_anew_once(gpu: list[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = SMALL.read_bytes()
    gpu += [REFUSED, good]
    with pytest.raises(BackendError, match="cannot load the engine on this GPU"):
        tensorrt.runner(SMALL, "float32")
    assert gpu == [good], "what was built just now and is refused is not built again"
    assert [path.read_bytes().partition(b"\n")[2] for path in tmp_path.rglob("*.engine")] == [REFUSED]
    Reference(MODEL).check("distance", tensorrt.runner(SMALL, "float32"))
    assert gpu == [] and "fake_tensorrt 1 cannot load the engine on this GPU; building it anew" in caplog.text
    Reference(MODEL).check("distance", tensorrt.runner(SMALL, "float32"))  # as kept
    assert [path.read_bytes().partition(b"\n")[2] for path in tmp_path.rglob("*.engine")] == [good]


def test_a_gpu_that_refuses_the_engine_built_anew_too_is_an_error(gpu: list[bytes]) -> None:
    gpu += 3 * [REFUSED]
    for left in (2, 1, 0):
        with pytest.raises(BackendError, match="fake_tensorrt 1 cannot load the engine on this GPU"):
            tensorrt.runner(SMALL, "float32")
        assert len(gpu) == left, "one each time"


def test_a_refused_engine_is_gone_although_no_other_can_be_built(gpu: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu += [REFUSED]
    with pytest.raises(BackendError):
        tensorrt.runner(SMALL, "float32")

    def build(network: bytes, wanted: engine.Target) -> bytes:
        raise BackendError("no memory to build in")

    monkeypatch.setattr(engine, "build", build)
    with pytest.raises(BackendError, match="no memory to build in"):
        tensorrt.runner(SMALL, "float32")
    assert not list(tmp_path.rglob("*.engine"))


def test_an_engine_the_gpu_refuses_is_an_error() -> None:
    cuda = fake_gpu.Cuda()
    with pytest.raises(BackendError, match="fake_tensorrt 1 cannot load the engine on this GPU"):
        tensorrt.TensorRTRunner(b"", fake_gpu.tensorrt(cuda), cuda, "float32")


def test_not_a_number_in_any_output_is_a_difference() -> None:
    reference = Reference(MODEL)

    class Overflowing:
        precision = "float16"

        def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = make_runner(MODEL / "plan_keys.onnx")(inputs)
            last = list(found)[-1]
            return found | {last: np.full_like(found[last], np.nan)}

    with pytest.raises(BackendError, match="plan_keys differs from torch float32 by inf"):
        reference.check("plan_keys", Overflowing())  # type: ignore[arg-type]
