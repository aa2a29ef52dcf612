"""Presets: their sizes, several cameras, and the memory they need, found without allocating any."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_dataset import episode

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

from act2goal_ros.cli.train import command  # noqa: E402
from act2goal_ros.learning import memory  # noqa: E402
from act2goal_ros.learning.batches import HOLD_STEPS, Episodes, Sampler  # noqa: E402
from act2goal_ros.learning.dataset import Episode, write_shard  # noqa: E402
from act2goal_ros.learning.memory import GIB, TooLittleMemoryError, available, check_memory, training_need  # noqa: E402
from act2goal_ros.learning.presets import build_system, configuration  # noqa: E402
from act2goal_ros.learning.system import System  # noqa: E402
from act2goal_ros.model.config import PRESETS, ConfigError, ModelConfig  # noqa: E402
from act2goal_ros.model.layers import LONG, attention, join_views, split_views  # noqa: E402
from act2goal_ros.serving.export import export  # noqa: E402

SMALL = ModelConfig(world_width=48, world_heads=4, expert_width=32, blocks=2, live_width=8, autoencoder_width=8)
TWO = replace(SMALL, views=2)
CPU = torch.device("cpu")


def parameters(module: torch.nn.Module) -> int:
    assert all(parameter.is_meta for parameter in module.parameters()), "nothing was allocated"
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_base() -> None:
    with torch.device("meta"):
        system = build_system(PRESETS["base"])
    assert parameters(system.world) == 271_171_648
    assert 150e6 < parameters(system) < 400e6


def test_parameters_of_paper() -> None:
    """LTX-Video's transformer has 1.92 billion; without what is for text 1.44; with the views' modulation 1.47, and with the expert 1.7."""
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        published = diffusers.LTXVideoTransformer3DModel()
        system = build_system(PRESETS["paper"])
    text = parameters(published.caption_projection) + sum(parameters(block.attn2) for block in published.transformer_blocks)
    assert (parameters(published), text) == (1_923_385_472, 482_693_120)
    vectors, views = 28 * 2048, 3 * 2048 + 2048 * 6 * 2048 + 6 * 2048
    assert parameters(system.world) == 1_923_385_472 - 482_693_120 + vectors + views == 1_465_933_952
    assert parameters(system.autoencoder) == 419_193_649
    assert len(system.expert.blocks) == len(system.world.transformer.transformer_blocks) == 28
    assert 1.6e9 < parameters(system) - parameters(system.autoencoder) < 1.75e9
    assert dict(published.config)["num_layers"] == PRESETS["paper"].blocks


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="'huge' is not one of tiny, base, paper"):
        configuration("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 0}, "views is 0, at least 1"),
        ({"architecture": "unet"}, "'unet' is not one of compact, ltx"),
        ({"temporal_compression": 8}, "dense_frames 3 is not 1 more than a multiple of temporal_compression 8"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PRESETS["tiny"], **changes)


def test_long_attention_is_the_same() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 7, 8), torch.randn(2, 3, LONG + 9, 8), torch.randn(2, 3, LONG + 9, 8)
    mask = -1e4 * (torch.rand(2, 1, 1, LONG + 9) < 0.5)
    written_out = (query @ key.transpose(-1, -2) / 8**0.5 + mask).softmax(-1) @ value
    assert torch.allclose(attention(query, key, value, mask), written_out, atol=1e-6)


def test_views_are_taken_apart_and_put_together() -> None:
    tall = torch.arange(2 * 3 * 8 * 4.0).reshape(2, 3, 8, 4)
    assert torch.equal(split_views(tall, 2)[1], tall[0, :, 4:])
    assert torch.equal(join_views(split_views(tall, 2), 2), tall)


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    made = [episode(40 + HOLD_STEPS, seed) for seed in range(3)]
    frames = [random.integers(0, 255, (len(e.frames), 256, 128, 3), np.uint8) for e in made]
    write_shard(folder / "00000", [Episode(**{**e.__dict__, "frames": f}) for e, f in zip(made, frames, strict=True)])
    found = Episodes(folder, config=TWO)
    found.latents = [random.normal(size=(len(e.frames), 8, 16, 8)).astype(np.float16) for e in found.all]
    return found


def test_a_system_of_two_cameras_learns(two_cameras: Episodes) -> None:
    torch.manual_seed(0)
    system = System(TWO)
    batch = Sampler(two_cameras, [0, 1], TWO, 0).batch(2)
    optimizer, history = torch.optim.Adam(system.parameters(), 1e-3), []
    for _ in range(4):
        torch.manual_seed(1)
        total = sum(system.losses(batch).values())
        history.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert history[-1] < history[0]
    assert [n for n, p in system.named_parameters() if p.grad is None and not n.startswith("autoencoder.")] == []


def test_cameras_are_told_apart_and_do_not_mix_in_the_autoencoder() -> None:
    torch.manual_seed(0)
    system = System(TWO)
    pictures = torch.rand(2, 3, 128, 64)
    latents = system.autoencoder.encode(pictures)
    assert latents.shape == (2, 8, 16, 8)
    assert torch.allclose(latents[:, :, 8:], system.autoencoder.encode(pictures.roll(64, 2))[:, :, :8], atol=1e-5)
    assert system.autoencoder.decode(latents).shape == pictures.shape
    shape = (1, 6, 8, 16, 8)
    noisy, current, goal = torch.randn(shape), torch.randn(1, 8, 16, 8), torch.randn(1, 8, 16, 8)
    offsets, level = torch.tensor([[8.0, 16, 24, 40, 60, 80]]), torch.ones(1)
    velocity, features = system.world(noisy, current, goal, offsets, level)
    assert velocity.shape == shape and features.shape == (1, 2, 6, 32, 48)
    turned, _ = system.world(noisy.roll(8, 3), current.roll(8, 2), goal.roll(8, 2), offsets, level)
    assert not torch.allclose(turned.roll(8, 3), velocity, atol=1e-4)


def test_one_camera_needs_no_embedding() -> None:
    assert System(SMALL).world.view is None
    assert "world.view" in System(TWO).state_dict()


def test_what_no_node_serves_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of one view, not 'compact' of 2"):
        export(System(TWO), tmp_path / "model", {})
    assert not (tmp_path / "model").exists()


def test_what_is_computed_for_a_training_is_what_it_takes(two_cameras: Episodes) -> None:
    """Without memory and in earnest: weights, gradients, AdamW's state, and what the losses keep for their gradients."""
    need = training_need(TWO, 2)
    torch.manual_seed(0)
    system = System(TWO)
    batch = Sampler(two_cameras, [0, 1], TWO, 0).batch(2)
    optimizer = torch.optim.AdamW([p for n, p in system.named_parameters() if not n.startswith("autoencoder.")])
    kept: dict[int, int] = {}
    own = {x.data_ptr() for x in (*system.parameters(), *system.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = sum(system.losses(batch).values())
    assert need.activations == pytest.approx(sum(size for at, size in kept.items() if at not in own), rel=0.03)
    total.backward()
    optimizer.step()
    assert need.weights == sum(x.nbytes for x in (*system.parameters(), *system.buffers()))
    assert need.gradients == sum(p.grad.nbytes for p in system.parameters() if p.grad is not None)
    state = sum(x.nbytes for values in optimizer.state.values() for x in values.values() if x.numel() > 1)
    assert need.optimizer == pytest.approx(state, rel=1e-3)
    assert need.total > need.weights + need.gradients + need.optimizer + need.average + need.activations


def test_more_plans_need_more_and_bfloat16_less() -> None:
    need = {(plans, bf16): training_need(replace(SMALL, world_width=192), plans, bf16) for plans in (8, 16) for bf16 in (False, True)}
    assert need[16, False].activations > 1.9 * need[8, False].activations
    assert need[16, True].activations < 0.8 * need[16, False].activations
    assert need[16, False].weights == need[8, True].weights


def test_too_little_memory_names_what_is_needed_and_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: round(0.3 * GIB))
    expected = r"to train tiny, 500 plans at a time, needs \d+\.\d GiB on cpu \(weights 0\.0, gradients 0\.0, optimizer 0\.0, " \
               r"average 0\.0, activations \d+\.\d\), 0\.3 are free; 1 plan at a time needs 0\.[12]"  # fmt: skip
    with pytest.raises(TooLittleMemoryError, match=expected):
        check_memory(PRESETS["tiny"], 500, CPU)
    check_memory(PRESETS["tiny"], 1, CPU)
    with pytest.raises(TooLittleMemoryError, match=r"1 plans at a time, in each of 4 processes, needs \d+\.\d GiB on cpu"):
        check_memory(PRESETS["tiny"], 1, CPU, processes=4)


def test_samples_without_pictures_need_memory_too() -> None:
    alone, both = (training_need(SMALL, 4, told=told) for told in (False, True))
    assert both.activations > 1.2 * alone.activations and both.weights == alone.weights


@pytest.mark.parametrize(("preset", "low", "high"), [("base", 8, 40), ("paper", 30, 200)])
def test_what_a_larger_preset_needs_is_named(preset: str, low: float, high: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: GIB)
    with pytest.raises(TooLittleMemoryError, match=rf"to train {preset}, 1 plans? at a time, needs \d+\.\d GiB on cpu") as told:
        check_memory(PRESETS[preset], 1, CPU)
    need = float(re.search(r"needs (\d+\.\d) GiB", str(told.value))[1])  # type: ignore[index]
    assert low < need < high, "four times the weights in float32, and what a plan keeps"


def test_free_memory_is_also_that_of_the_process_s_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9000000 kB\nMemAvailable:    4000000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert available(CPU) == 4_096_000_000
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available(CPU) == 4_096_000_000
    (tmp_path / "memory.max").write_text("3000\n")
    assert available(CPU) == 2000


def test_the_command_refuses_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()

    def output(*arguments: str) -> str:
        result = CliRunner().invoke(command, [str(tmp_path / "data"), str(tmp_path / "run"), *arguments])
        assert result.exit_code != 0 and not (tmp_path / "run").exists()
        return result.output

    assert "preset 'paper' needs --pretrained" in output("--preset", "paper")
    for part in ("distilled", "distance"):
        given = ("--preset", "paper", "--part", part, "--pretrained", str(tmp_path), "--start-from", str(tmp_path))
        assert f"part '{part}' is not for preset 'paper'" in output(*given)
    assert "preset 'huge' is not one of tiny, base, paper" in output("--preset", "huge")
    assert "published weights are for architecture 'ltx'" in output("--pretrained", str(tmp_path))
    assert f"Error: no shards in {tmp_path / 'data'}: 0 found, at least 1 needed" in output()
    (tmp_path / "data" / "00000").mkdir()
    (tmp_path / "data" / "00000" / "index.json").write_text('{"format": 5, "episodes')
    assert "0 usable episodes in 1 shards, at least 1 needed" in output() and "00000: cannot be read: index.json: JSON" in output()
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    assert "0.0 are free" in output()
