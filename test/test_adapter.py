"""LoRA adapters: files in peft's format, refused or in force from the next chunk, and equal to torch with the changed weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from safetensors.numpy import save_file  # noqa: E402

from act2goal_ros.learning.system import System  # noqa: E402
from act2goal_ros.model.config import ModelConfig  # noqa: E402
from act2goal_ros.serving import adapter as adapters  # noqa: E402
from act2goal_ros.serving.adapter import AdapterError  # noqa: E402
from act2goal_ros.serving.bundle import ModelBundle  # noqa: E402
from act2goal_ros.serving.export import export  # noqa: E402
from act2goal_ros.serving.policy import Proprio  # noqa: E402

SMALL = ModelConfig(world_width=48, world_heads=4, expert_width=32, blocks=2, live_width=8, autoencoder_width=8, flow_steps=2, lora_rank=4)
HASH = "b" * 64


@pytest.fixture(scope="module")
def system() -> System:
    torch.manual_seed(3)
    made = System(SMALL)
    for parameter in made.expert.parameters():  # away from the zeros it is initialised with
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def bundle(system: System, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    folder = tmp_path_factory.mktemp("model")
    export(system, folder, {"name": "small", "robots": ["ur5e_sim"]})
    return ModelBundle.load(folder)


def matrices(rank: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random ones for every layer, by peft's names."""
    random = np.random.default_rng(seed)
    found = {}
    for layer, (inputs, outputs) in SMALL.lora_layers.items():
        found[f"base_model.model.{layer}.lora_A.weight"] = random.normal(0, 0.3, (rank, inputs)).astype(np.float32)
        found[f"base_model.model.{layer}.lora_B.weight"] = random.normal(0, 0.3, (outputs, rank)).astype(np.float32)
    return found


def write(folder: Path, stored: dict[str, np.ndarray], base_hash: str = HASH, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(stored, folder / adapters.WEIGHTS, {adapters.BASE_HASH: base_hash})
    (folder / adapters.SETTINGS).write_text(json.dumps({"r": 2, "lora_alpha": 6} | settings))
    return folder


def chunk(policy, seed: int = 0) -> np.ndarray:
    """What the policy gives for a random picture and plan."""
    random = np.random.default_rng(seed)
    features = random.normal(size=replace(SMALL, located=True).served_features).astype(np.float32)
    frame = policy.observe(random.integers(0, 255, (128, 128, 3), np.uint8))
    out = policy.act(policy.set_plan(features), frame, Proprio(np.full(6, 0.3), np.zeros(6), 0.0), np.ones(6, bool), np.arange(1.0, 7.0))
    return np.hstack([out.positions, out.gripper[:, None]])


def test_an_adapter_computes_what_torch_does_with_changed_weights(system: System, tmp_path: Path) -> None:
    stored, changed = matrices(rank=2), System(SMALL)
    changed.load_state_dict(system.state_dict())
    for layer in SMALL.lora_layers:
        a, b = (torch.from_numpy(stored[f"base_model.model.{layer}.lora_{m}.weight"]) for m in "AB")
        changed.expert.get_submodule(layer).weight.data += 3.0 * b @ a  # alpha / r = 6 / 2
    for made, folder in ((system, tmp_path / "base"), (changed, tmp_path / "changed")):
        export(made.eval(), folder, {"name": "small", "robots": ["ur5e_sim"]})
    base, expected = ModelBundle.load(tmp_path / "base").policy(), chunk(ModelBundle.load(tmp_path / "changed").policy())
    before = chunk(base)
    base.set_adapter(adapters.load(write(tmp_path / "a", stored), SMALL, HASH, "first"))
    np.testing.assert_allclose(chunk(base), expected, atol=2e-5)
    assert np.abs(expected - before).max() > 1e-2 and base.adapter_id == "first"
    base.set_adapter(None)
    np.testing.assert_array_equal(chunk(base), before)


def test_torch_takes_an_adapter_as_onnx_runtime_does(bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # of the whole process
    made = adapters.load(write(tmp_path / "a", matrices(rank=2)), SMALL, HASH, "first")
    served, eager = bundle.policy("onnxruntime"), bundle.policy("torch")
    before = chunk(eager)
    np.testing.assert_allclose(before, chunk(served), atol=1e-3)
    for policy in (served, eager):
        policy.set_adapter(made)
    found = chunk(eager)
    np.testing.assert_allclose(found, chunk(served), atol=1e-3)
    assert np.abs(found - before).max() > 1e-2
    eager.set_adapter(None)
    np.testing.assert_array_equal(chunk(eager), before)


def test_the_layers_that_may_change_are_the_expert_s(system: System) -> None:
    sizes = {name: (layer.in_features, layer.out_features) for name in SMALL.lora_layers if (layer := system.expert.get_submodule(name))}
    assert sizes == SMALL.lora_layers


def test_swapping_never_mixes_two_adapters(bundle: ModelBundle, tmp_path: Path) -> None:
    policy = bundle.policy()
    made = [adapters.load(write(tmp_path / str(i), matrices(2, i)), SMALL, HASH, str(i)) for i in range(2)]
    expected = {}
    for one in made:
        policy.set_adapter(one)
        expected[one.identity] = chunk(policy)
    for turn in range(6):
        policy.set_adapter(made[turn % 2])
        np.testing.assert_array_equal(chunk(policy), expected[str(turn % 2)])


def damaged(name: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    stored = matrices(rank=2)
    first = next(iter(stored))
    if value is not None:
        stored[first] = value
    else:
        stored[name] = stored.pop(first)
    return stored


NAN = np.full((2, 32), np.nan, np.float32)


@pytest.mark.parametrize(
    ("stored", "settings", "message"),
    [
        (matrices(2), {"base_hash": "c" * 64}, r"was trained on model cccccccccccc, here runs bbbbbbbbbbbb"),
        (matrices(2), {"r": 9}, r"rank 9, the model takes 1 to 4"),
        (matrices(2), {"r": None}, r"rank None, the model takes 1 to 4"),
        (matrices(2), {"lora_alpha": float("inf")}, r"lora_alpha is inf, a finite number is needed"),
        (matrices(2), {"r": 3}, r"blocks\.0\.qkv\.lora_[AB]\.weight has shape \(\d+, \d+\), expected \(\d+, \d+\)|has shape"),
        (damaged("", NAN), {}, r"blocks\.0\.qkv\.lora_A\.weight holds a value that is not finite"),
        (damaged("base_model.model.live.out.lora_A.weight", None), {}, r"live\.out\.lora_A\.weight is none of the layers"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, stored, settings, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        adapters.load(write(tmp_path / "a", stored, **settings), SMALL, HASH, "x")


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter in"):
        adapters.load(tmp_path, SMALL, HASH, "x")
    folder = write(tmp_path / "a", matrices(2))
    (folder / adapters.WEIGHTS).write_bytes(b"not a safetensors file")
    with pytest.raises(AdapterError, match="no adapter in"):
        adapters.load(folder, SMALL, HASH, "x")
