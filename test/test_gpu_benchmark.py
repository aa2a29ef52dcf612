"""benchmarks/gpu.py, as far as it runs without a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu  # noqa: E402
import torch  # noqa: E402
from realtime_tables import gpu_section  # noqa: E402

from act2goal_ros.model.config import PRESETS  # noqa: E402
from act2goal_ros.serving.networks import networks  # noqa: E402

ONNX = ("onnxruntime",)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny` in a tenth of a second."""
    sizes = {"world_width": 48, "world_heads": 4, "expert_width": 32, "expert_heads": 4, "blocks": 2, "live_width": 8}
    monkeypatch.setitem(gpu.PRESETS, "tiny", replace(PRESETS["tiny"], autoencoder_width=8, **sizes))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


@pytest.mark.parametrize("network", gpu.NETWORKS)
def test_every_backend_is_timed_and_compared_with_eager_torch(small: None, network: str) -> None:
    eager, served = gpu.measure("tiny", network, "cpu", 3, ONNX)
    assert (eager["backend"], eager["precision"], eager["difference"]) == ("torch", "float32", 0.0)
    assert (served["backend"], served["network"], served["runs"]) == ("onnxruntime", network, 3)
    assert 0 < served["difference"] < 1e-3 and 0 < served["p50"] <= served["p99"]


def test_what_does_not_run_says_why_and_hides_nothing(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LARGEST_ONNX", 1000)
    eager, served = gpu.measure("tiny", "tick", "cpu", 3, ONNX)
    assert "p50" in eager and "GB of weights, an ONNX file holds" in served["left_out"]
    page = "\n".join(gpu_section({"device": "cpu", "rows": [eager, served], "compile_over_tensorrt": {"tiny tick": 2.5}}))
    assert "| onnxruntime | float32 | BackendError: " in page and "tiny tick: 2.5 × (asked: ≥ 2)." in page


@pytest.mark.parametrize("size", PRESETS)
def test_every_preset_has_a_tick_and_an_imagination(size: str) -> None:
    with torch.device("meta"):
        config = gpu.config_of(size)
        found = networks(gpu.System(config))
    assert set(gpu.NETWORKS) <= set(found)
    assert config.chunk_steps >= 50 or size != "paper"  # the paper's chunk
    assert (gpu.parameter_bytes(found["imagine"]) > gpu.LARGEST_ONNX) == (size == "paper")
    assert gpu.parameter_bytes(found["tick"]) < gpu.LARGEST_ONNX


def test_torch_compile_is_set_against_tensorrt_each_at_its_quickest() -> None:
    def row(backend: str, p50: float) -> dict[str, object]:
        return {"size": "base", "network": "tick", "backend": backend, "p50": p50}

    rows = [row("torch_compiled", 6.0), row("torch_compiled", 4.0), row("tensorrt", 1.0), row("tensorrt", 2.0), row("torch", 9.0)]
    assert gpu.ratios(rows) == {"base tick": 4.0}
    assert gpu.ratios(rows[:2]) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so() -> None:
    outcome = CliRunner().invoke(gpu.main, [])
    assert outcome.exit_code == 1 and "no NVIDIA GPU, or a torch without CUDA" in outcome.output
