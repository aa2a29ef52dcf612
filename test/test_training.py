"""Training: the same curve from the same seed, killed, resumed or shared; and what happens when data, disk or numbers are bad."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from tensorboardX.proto.event_pb2 import Event  # noqa: E402
from test_dataset import episode  # noqa: E402
from training_under_test import TINY, curve, small_episodes, small_training  # noqa: E402

from act2goal_ros.cli.train import command  # noqa: E402
from act2goal_ros.learning import recipe, released  # noqa: E402
from act2goal_ros.learning.batches import Episodes, Sampler  # noqa: E402
from act2goal_ros.learning.checkpoint import CannotWriteError, CheckpointError, load, load_newest, previous, save, write  # noqa: E402
from act2goal_ros.learning.dataset import DatasetError, read_shard, write_shard  # noqa: E402
from act2goal_ros.learning.fit import EASING  # noqa: E402
from act2goal_ros.learning.presets import build_system  # noqa: E402
from act2goal_ros.learning.report import Events, Report  # noqa: E402
from act2goal_ros.learning.schedule import Average, Schedule, TrainingError, seeded  # noqa: E402
from act2goal_ros.learning.system import System  # noqa: E402
from act2goal_ros.learning.train import encode_all  # noqa: E402
from act2goal_ros.model.config import ModelConfig  # noqa: E402
from act2goal_ros.model.kinematics import ForwardKinematics  # noqa: E402
from act2goal_ros.serving.bundle import WEIGHTS, ModelBundle, ModelError  # noqa: E402

PROGRAM = [sys.executable, str(Path(__file__).with_name("training_under_test.py"))]
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Episodes:
    return small_episodes(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(episodes: Episodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps, not interrupted."""
    run = tmp_path_factory.mktemp("whole")
    small_training(run, episodes)
    return run


def start(run: Path, **options: Any) -> "subprocess.Popen[bytes]":
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
    return subprocess.Popen([*PROGRAM, str(run), json.dumps(options)], env=environment)


def rows(run: Path) -> int:
    return len(curve(run)) - 1 if (run / "stage1.csv").exists() else 0


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < end, f"not within {PATIENCE_S} s"
        time.sleep(0.01)


def test_a_killed_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL somewhere between two checkpoints; the curve, the weights, their average and the optimizer are the same to the bit."""
    options = {"steps": 80, "checkpoint_s": 0.2}
    assert start(tmp_path / "whole", **options).wait(PATIENCE_S) == 0
    killed = start(tmp_path / "cut", **options)
    wait_for((tmp_path / "cut" / "stage1.pt").exists, killed)
    done = rows(tmp_path / "cut")
    wait_for(lambda: rows(tmp_path / "cut") >= done + 3, killed)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 0 < load(tmp_path / "cut" / "stage1.pt")["steps"] < 80, "cut in mid-run"
    assert start(tmp_path / "cut", **options).wait(PATIENCE_S) == 0
    assert len(curve(tmp_path / "whole")) == 81
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert_same(load(tmp_path / "cut" / "stage1.pt"), load(tmp_path / "whole" / "stage1.pt"))


def assert_same(first: Any, second: Any, name: str = "checkpoint") -> None:
    """Equal to the bit, but for the time."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first.keys() - {"elapsed"}:
            assert_same(first[key], second[key], f"{name}.{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    elif isinstance(first, list):
        assert len(first) == len(second), name
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{name}.{i}")
    else:
        assert first == second, name


def test_same_seed_same_curve(episodes: Episodes, whole: Path, tmp_path: Path) -> None:
    small_training(tmp_path / "again", episodes)
    small_training(tmp_path / "other", episodes, seed=1)
    assert curve(tmp_path / "again") == curve(whole)
    assert len(curve(whole)) == 7 and curve(whole)[0][:3] == ["step", "video", "action"]
    assert curve(tmp_path / "other")[1] != curve(whole)[1]


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """Two stages, each step in two parts: both in one process, or one in each of two (gloo)."""
    for name, processes in (("one", 1), ("two", 2)):
        assert start(tmp_path / name, parts=2, processes=processes, stages=["stage1", "stage2"]).wait(PATIENCE_S) == 0
    for stage in ("stage1", "stage2"):
        one, two = (np.array(curve(tmp_path / name, stage)[1:], float) for name in ("one", "two"))
        assert one.shape == two.shape == (6, 12)
        np.testing.assert_allclose(two, one, rtol=2e-4)


def test_parts_add_up_to_the_gradient_of_the_whole(episodes: Episodes, tmp_path: Path) -> None:
    """The first step's losses are the means over its parts, each drawn from seed, step and part."""
    small_training(tmp_path, episodes, steps=1, parts=2, batch=4)
    torch.manual_seed(0)
    system = System(TINY)
    from act2goal_ros.learning import train

    train.prepare(system, episodes)
    sampler = Sampler(episodes, episodes.split()[0], TINY, 0)
    parts = [system.losses(sampler.batch(2, seeded(0, 0, part))) for part in range(2)]
    for name, value in zip(recipe.WEIGHTS["shipped"]["stage1"], curve(tmp_path)[1][1:9], strict=True):
        assert float(value) == pytest.approx(sum(part[name].item() for part in parts) / 2, rel=1e-5)


def test_parts_that_cannot_be_shared(episodes: Episodes, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="batch 3 cannot be divided into 2 equal parts"):
        Schedule(batch=3, parts=2)
    with pytest.raises(TrainingError, match="learning_rate is 0, it must be above 0"):
        Schedule(learning_rate=0)
    with pytest.raises(TrainingError, match="steps is 0, at least 1 is needed"):
        Schedule(steps=0)


def test_bf16_is_of_activations_only(episodes: Episodes, whole: Path, tmp_path: Path) -> None:
    small_training(tmp_path, episodes, precision="bf16")
    coarse, fine = (np.array(curve(run)[1:], float)[:, 1:6] for run in (tmp_path, whole))
    assert not np.array_equal(coarse, fine), "nothing was computed in bf16"
    np.testing.assert_allclose(coarse, fine, rtol=0.1)
    state = load(tmp_path / "stage1.pt")
    moments = [value for part in state["optimizer"]["state"].values() for value in part.values()]
    kept = [*state["model"].values(), *state["average"].values(), *moments]
    assert {value.dtype for value in kept} == {torch.float32}


def test_kinematics_are_not_rounded_to_bf16() -> None:
    kinematics, joints = ForwardKinematics(), torch.tensor([[-1.5, -1.8, 1.9, -1.6, -1.57, 0.3]])
    exact = kinematics(joints)
    places = exact.tool.unsqueeze(1) + torch.tensor([[[0.01, 0.01, 0.01], [0.1, 0.0, -0.1]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = kinematics(joints)
        motions = kinematics.reaching(joints, found, places)
    assert torch.equal(found.tool, exact.tool)
    assert torch.equal(motions, kinematics.reaching(joints, exact, places))


def test_no_tensor_is_made_on_another_device(episodes: Episodes) -> None:
    """Stands in for a GPU: the meta device refuses tensors of the CPU."""
    from act2goal_ros.learning.devices import made_on

    batch = Sampler(episodes, [0, 1], TINY, 0).batch(2)
    there = batch.__class__(**{name: value.to("meta") for name, value in batch.__dict__.items()})
    with made_on(torch.device("meta")):
        losses = System(TINY).to("meta").losses(there)
    assert {value.device.type for value in losses.values()} == {"meta"}


def test_the_rate_follows_steps_or_minutes() -> None:
    by_steps, by_minutes = Schedule(steps=100, warm_up=0.1), Schedule(minutes=10, warm_up=0.1)
    assert by_steps.done(50, elapsed=1e6) == 0.5 == by_minutes.done(10**6, elapsed=300)
    assert by_steps.rate(0.05) == pytest.approx(0.5 * by_steps.rate(0.1), rel=0.05)
    assert by_steps.rate(1.0) == pytest.approx(0.02 * by_steps.learning_rate)
    assert max(by_steps.rate(i / 100) for i in range(101)) == by_steps.rate(0.1)


def test_the_average_lags_and_steps_aside(episodes: Episodes) -> None:
    module = torch.nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(0.0)
    average = Average(module, 0.5)
    for _ in range(40):
        average.update(module)
    module.weight.data.fill_(1.0)
    average.update(module)
    assert average.values["weight"].dtype == torch.float32 and average.values["weight"].item() == 0.5
    with average.applied(module):
        assert module.weight.item() == 0.5
    assert module.weight.item() == 1.0


def test_a_training_ends_with_the_averaged_weights(episodes: Episodes, tmp_path: Path) -> None:
    system = small_training(tmp_path, episodes)
    kept = load(tmp_path / "stage1.pt")
    for name, value in system.state_dict().items():
        assert torch.equal(value, kept["average"][name]), name
    assert any(not torch.equal(kept["average"][name], value) for name, value in kept["model"].items())


def test_gradients_are_clipped(episodes: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms, step = [], torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **named: Any) -> Any:
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack(gradients).norm().item())
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    small_training(tmp_path, episodes, steps=3, clip=1e-3)
    header, *logged = curve(tmp_path)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)
    assert all(float(row[header.index("norm")]) > 1e-2 for row in logged), "what it was is what is told"


def test_recipes() -> None:
    """The paper's stage 1 is L_v + 0.1 L_a, its stage 2 L_a; labels of the simulator are no part of either."""
    for stage, video, action in (("stage1", 1.0, 0.1), ("stage2", 0.0, 1.0)):
        found = recipe.weights("paper", stage, {})
        assert (found["video"], found["action"], found["cube"], found["target"]) == (video, action, 0.0, 0.0)
    assert recipe.weights("shipped", "stage1", {"video": 0.25})["video"] == 0.25
    with pytest.raises(TrainingError, match="no loss colour; there are video, action"):
        recipe.weights("shipped", "stage1", {"colour": 1.0})


# Checkpoints


def test_a_damaged_checkpoint_is_found_and_the_one_before_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stage1.pt"
    for step in (1, 2, 3):
        save(path, {"steps": step, "model": {"x": torch.full((1000,), float(step))}})
    assert (load(previous(path))["steps"], load(path)["steps"]) == (2, 3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["model"]["x"].unique().numel() == 2, "torch itself does not notice"
    with pytest.raises(CheckpointError, match=rf"{path} is damaged: the checksum of .*data.* is wrong"):
        load(path)
    taken = load_newest(path)
    assert taken is not None and taken["steps"] == 2
    assert f"checkpoint {path} is damaged" in capsys.readouterr().err
    assert (tmp_path / "stage1.damaged.pt").exists() and not path.exists()
    path.write_bytes(data[: len(data) // 2])
    previous(path).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"{path} is damaged.*{previous(path)} is damaged \(0 bytes\).*delete them to start anew"):
        load_newest(path)
    assert load_newest(tmp_path / "stage2.pt") is None
    with pytest.raises(CheckpointError, match="no checkpoint .*stage2.pt"):
        load(tmp_path / "stage2.pt")


def test_a_training_goes_on_from_the_checkpoint_before(
    episodes: Episodes, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after its fourth step, the newest checkpoint damaged: it does the fourth step again, and the curve is the same."""
    usual = System.losses

    def cut(self: System, batch: Any) -> dict[str, torch.Tensor]:
        if rows(tmp_path) == 4:
            raise KeyboardInterrupt
        return usual(self, batch)

    monkeypatch.setattr(System, "losses", cut)
    with pytest.raises(KeyboardInterrupt):
        small_training(tmp_path, episodes, checkpoint_s=0.0)
    monkeypatch.undo()
    path = tmp_path / "stage1.pt"
    assert (load(previous(path))["steps"], load(path)["steps"]) == (3, 4)
    path.write_bytes(path.read_bytes()[:5000])
    small_training(tmp_path, episodes)
    assert curve(tmp_path) == curve(whole)
    assert_same(load(path), load(whole / "stage1.pt"))


def train_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's preset is the smallest model, its held-out batches are few."""
    from act2goal_ros.learning import train
    from act2goal_ros.model import config

    monkeypatch.setitem(config.PRESETS, "tiny", TINY)
    monkeypatch.setattr(train, "HELD_OUT_BATCHES", 1)
    monkeypatch.setattr(train, "HELD_OUT_PLANS", 2)


def told_episodes(folder: Path) -> None:
    """Small episodes with labels of all key points."""
    small_episodes(folder / "plain", count=6)
    places = np.random.default_rng(0).random((1000, TINY.keypoints, 3), np.float32)
    places[..., 2] = 1.0  # all of them are to be seen
    labels = {"environment": "cube-double", "milestones": (8, 20)}
    made = [replace(e, keypoints=places[: len(e.frames)], **labels) for e in read_shard(folder / "plain" / "00000")]
    write_shard(folder / "told" / "00000", made)
    unknown = np.full((1000, 3), np.nan, np.float32)
    bare = [replace(e, keypoints=None, milestones=(), cube=unknown[: len(e)], target=unknown[: len(e)]) for e in made]
    write_shard(folder / "untold" / "00000", bare)


@pytest.mark.parametrize("part", ["acting", "autoencoder", "looking", "world", "stage1"])
def test_every_part_goes_on_where_it_was_cut(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its second of four steps; its files are to the bit those of a run that was not cut. Stage 1 with states beside."""
    from act2goal_ros.learning import fit, train

    train_tiny(monkeypatch)
    monkeypatch.setattr(train, "NORMALISED_AFTER", (1, 3))
    monkeypatch.setattr(fit, "Cadence", partial(fit.Cadence, log_steps=1, checkpoint_s=0.0))
    told_episodes(tmp_path)
    usual, data = fit.Trainer._step, str(tmp_path / "told")

    def step(self: fit.Trainer, elapsed: float) -> None:
        if self._job.name.startswith(part) and self._steps == 2:
            raise KeyboardInterrupt
        usual(self, elapsed)

    def call(run: Path) -> int:
        arguments = [data, str(run), "--device", "cpu", "--batch", "2", "--steps", "4", "--part", part]
        return CliRunner().invoke(command, [*arguments, *["--states", data] * (part == "stage1")]).exit_code

    assert call(tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(fit.Trainer, "_step", step)
        assert call(tmp_path / "cut") != 0
    name = part if part in ("world", "stage1") else f"{part}-training"
    assert load(tmp_path / "cut" / f"{name}.pt")["steps"] == 2
    assert call(tmp_path / "cut") == 0
    whole, again = ({path.name: path for path in (tmp_path / run).glob("*.pt")} for run in ("whole", "cut"))
    assert f"{part}.pt" in whole and whole.keys() == again.keys()
    for name in whole:
        if "previous" not in name:
            assert_same(load(again[name]), load(whole[name]), name)


def test_a_checkpoint_of_another_configuration(episodes: Episodes, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    state = load(whole / "stage1.pt")
    save(tmp_path / "stage1.pt", state | {"config": state["config"] | {"world_width": 48, "prefix_steps": 2}})
    with pytest.raises(CheckpointError, match="of another configuration: prefix_steps 2 there, 4 here; world_width 48 there, 24"):
        small_training(tmp_path, episodes)
    previous(tmp_path / "stage1.pt").unlink()
    (tmp_path / "stage1.pt").unlink()
    save(tmp_path / "stage1.pt", {"model": state["model"]})
    with pytest.raises(CheckpointError, match=r"stage1\.pt lacks average, config, elapsed, optimizer, steps"):
        small_training(tmp_path, episodes)


def test_a_checkpoint_from_before_these_fields_is_gone_on_from(episodes: Episodes, whole: Path, tmp_path: Path) -> None:
    state = load(whole / "stage1.pt")
    save(tmp_path / "stage1.pt", {key: state[key] for key in ("model", "optimizer", "average", "elapsed", "steps", "config")})
    small_training(tmp_path, episodes, steps=8)
    assert [row[0] for row in curve(tmp_path)[1:]] == ["7", "8"]


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"model": Path("/")}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt is damaged.*[Ww]eights"):
        load(tmp_path / "x.pt")


# Bad numbers, full disks, bad data


def test_there_is_a_checkpoint_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that is killed when the new file is about to take the old one's place leaves the old one there."""
    path = tmp_path / "stage1.pt"
    save(path, {"steps": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        save(path, {"steps": 2})
    assert (load(path)["steps"], load(previous(path))["steps"]) == (1, 1)
    save(path, {"steps": 3})
    assert (load(path)["steps"], load(previous(path))["steps"]) == (3, 1)


def test_a_file_system_without_second_names_keeps_two_checkpoints_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "stage1.pt"
    for steps in range(3):
        save(path, {"steps": steps})
    assert (load(path)["steps"], load(previous(path))["steps"]) == (2, 1)


def poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Makes the action loss of these steps (from 0) not a number."""
    losses, count = System.losses, iter(range(10**6))

    def poisoned(self: System, batch: Any) -> dict[str, torch.Tensor]:
        found = losses(self, batch)
        return found | {"action": found["action"] * float("nan")} if self.training and next(count) in steps else found

    monkeypatch.setattr(System, "losses", poisoned)


def test_a_step_with_nan_is_skipped_and_counted(episodes: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {2, 3})
    system = small_training(tmp_path, episodes, patience=3)
    assert [row[-1] for row in curve(tmp_path)[1:]] == ["0", "0", "1", "2", "2", "2"]
    assert all(bool(value.isfinite().all()) for value in system.state_dict().values())
    state = load(tmp_path / "stage1.pt")
    assert (state["steps"], state["skipped"], state["updates"]) == (6, 2, 4)


def test_too_many_in_a_row_end_the_training(episodes: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, {2, 3, 4})
    with pytest.raises(TrainingError, match=r"step 5 is skipped: loss video .*, action nan.*norm of the gradient nan; 3 in a row"):
        small_training(tmp_path, episodes, patience=3, checkpoint_s=0.0)
    state = load(tmp_path / "stage1.pt")
    assert state["steps"] == 4 and all(bool(value.isfinite().all()) for value in state["model"].values())


def full_disk(path: Path) -> None:
    """The next file written here meets a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.tmp").symlink_to("/dev/full")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    save(path, {"x": torch.zeros(10)})
    full_disk(path)
    with pytest.raises(
        CannotWriteError, match=r"a\.pt could not be written: .*No space left on device; it needs about 46\d+ bytes, \d+ are"
    ):
        save(path, {"x": torch.ones(100000)})
    assert torch.equal(load(path)["x"], torch.zeros(10)) and not (tmp_path / "a.pt.tmp").is_symlink()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(CannotWriteError, match="it needs about 4096 bytes, 1000 are free"):
        write(path, 4096, lambda file: file.write(b"x"))
    assert torch.equal(load(path)["x"], torch.zeros(10))


def test_a_disk_that_fills_while_training(episodes: Episodes, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint that fails is tried again, the log's rows are written later: nothing is lost."""
    full_disk(tmp_path / "stage1.pt")
    small_training(tmp_path, episodes, checkpoint_s=0.0)
    assert "No space left on device" in (said := capsys.readouterr().err) and "tried again in 0 s (1 of 10)" in said
    assert curve(tmp_path) == curve(whole)
    assert_same(load(tmp_path / "stage1.pt")["model"], load(whole / "stage1.pt")["model"])


def test_a_disk_that_is_full_at_the_end(episodes: Episodes, whole: Path, tmp_path: Path) -> None:
    """The training ends with an error, and goes on from the last checkpoint once there is room."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    full_disk(tmp_path / "stage1.pt")
    with pytest.raises(TrainingError, match="No space left on device.*the same command goes on from there"):
        small_training(tmp_path, episodes, steps=8)
    assert load(tmp_path / "stage1.pt")["steps"] == 6
    small_training(tmp_path, episodes, steps=8)
    assert load(tmp_path / "stage1.pt")["steps"] == 8 and len(curve(tmp_path)) == 9


def test_a_disk_that_fills_with_latents(tmp_path: Path) -> None:
    """Named with what they need; there is no half file, and the same call goes on once there is room."""
    episodes, system = small_episodes(tmp_path / "data"), build_system(TINY)
    path = tmp_path / "data" / "00000" / "latents-key.npy"
    full_disk(path)
    needed = sum(len(e.frames) for e in episodes.all) * TINY.latent_channels * TINY.latent_size**2 * 2
    reason = rf"latents-key\.npy could not be written: .*No space left on device; it needs about {needed} "
    with pytest.raises(CannotWriteError, match=reason):
        encode_all(episodes, system.autoencoder, TINY, "key")
    assert not path.exists()
    episodes.latents.clear()
    encode_all(episodes, system.autoencoder, TINY, "key")
    assert path.exists() and [len(latents) for latents in episodes.latents] == [len(e.frames) for e in episodes.all]


def test_what_tensorboard_does_not_get_ends_no_training(
    episodes: Episodes, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A write that fails: the next one goes into another file."""
    usual, calls = Events.write, iter(range(10**6))

    def write_or_not(self: Events, step: int, *others: Any) -> None:
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        usual(self, step, *others)

    monkeypatch.setattr(Events, "write", write_or_not)
    small_training(tmp_path, episodes)
    assert "the training goes on, but what it told was not written: [Errno 28] No space left" in capsys.readouterr().err
    assert len(list((tmp_path / "tensorboard" / "stage1").iterdir())) == 2 and curve(tmp_path) == curve(whole)


def test_rows_that_could_not_be_written_come_later(
    episodes: Episodes, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = Path.open, iter(range(10**6))

    def sometimes(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if self.name == "stage1.csv" and mode == "ab" and next(calls) in (1, 2):
            raise OSError(28, "No space left on device")
        return usual(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", sometimes)
    small_training(tmp_path, episodes)
    assert curve(tmp_path) == curve(whole)


def test_a_log_with_other_columns_is_kept(tmp_path: Path) -> None:
    for step, losses in ((1, {"action": 1.0}), (2, {"action": 0.9}), (3, {"action": 0.8, "told_action": 0.7})):
        report = Report(tmp_path, "stage1", Schedule(steps=9), step - 1, 0.0)
        report.row(step, 0.5, losses, {"rate": 0.1})
        report.close()
    assert curve(tmp_path) == [["step", "action", "told_action", "rate"], ["3", "0.8", "0.7", "0.1"]]
    kept = (tmp_path / "stage1-until-3.csv").read_text().splitlines()
    assert kept == ["step,seconds,action,rate", "1,0.5,1,0.1", "2,0.5,0.9,0.1"]


def test_nothing_to_learn_from(episodes: Episodes, tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [replace(e, disturbed=np.ones(len(e), bool)) for e in episodes.all])
    with pytest.raises(DatasetError, match="every step of .* episodes is disturbed"):
        Sampler(Episodes(tmp_path, config=TINY), [0, 1], TINY, 0)


# What people see


def events(folder: Path) -> list[Event]:
    """All of TensorBoard's events in a folder (each a length, a checksum, the event, a checksum)."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_a_longer_schedule_raises_the_rate_little_by_little(episodes: Episodes, tmp_path: Path) -> None:
    """The rate had fallen to a fiftieth; at that of the longer schedule's middle at once, an annealed optimizer throws the weights away."""
    small_training(tmp_path, episodes, steps=4)
    small_training(tmp_path, episodes, steps=8)
    column = curve(tmp_path)[0].index("rate")
    rates = [float(row[column]) for row in curve(tmp_path)[1:]]
    schedule = Schedule(steps=8, batch=2, learning_rate=2e-3, warm_up=0.2)
    wanted = [schedule.rate(step / 8) for step in range(1, 9)]
    assert wanted[4] > 10 * rates[3], "the jump"
    for k in range(4):
        assert rates[4 + k] == pytest.approx(rates[3] + (wanted[4 + k] - rates[3]) * k / EASING, rel=1e-3)


def test_tensorboard_has_losses_held_out_losses_and_pictures(whole: Path) -> None:
    found = [(event.step, value) for event in events(whole / "tensorboard" / "stage1") for value in event.summary.value]
    video = {step: value.simple_value for step, value in found if value.tag == "loss/video"}
    assert video == {int(row[0]): pytest.approx(float(row[1])) for row in curve(whole)[1:]}
    assert {value.tag for step, value in found if step == 6} >= {"held_out/video", "held_out/action", "held_out", "step/rate", "step/norm"}
    picture = next(value.image for _, value in found if value.tag == "held_out")
    assert (picture.width, picture.height) == (8 * 128, 2 * 128), "current, six imagined frames, goal; over the true ones; twice enlarged"
    assert (whole / "stage1.png").read_bytes()[:4] == b"\x89PNG"


def test_the_command_trains_and_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it on the smallest model: autoencoder, both stages, distilled; and errors as one line."""
    from act2goal_ros.model import config

    train_tiny(monkeypatch)
    data, run = tmp_path / "data", tmp_path / "run"
    small_episodes(data)
    write_shard(data / "00001", [episode(40, 7)])  # pictures of 16 pixels

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(command, [str(data), str(run), "--device", "cpu", "--batch", "2", *arguments])

    result = call("--steps", "2", "--steps", "stage1=3", "--recipe", "paper", "--weight", "video=0.5")
    assert result.exit_code == 0, result.output
    assert "episode 0: frames has shape" in result.output and "\n1 shards or episodes skipped" in result.output
    assert [load(run / f"{part}.pt")["steps"] for part in ("autoencoder", "stage1", "stage2")] == [2, 3, 2]
    assert load(run / "stage1.pt")["weights"] == {"video": 0.5, "action": 0.1} | recipe.UNLABELLED
    result = call("--steps", "1", "--part", "distilled", "--start-from", str(run / "stage2.pt"), "--teacher-steps", "2")
    assert result.exit_code == 0 and "new there: nothing" in result.output, result.output
    result = call("--steps", "1", "--part", "distance")
    assert result.exit_code == 2 and "--part distance needs --start-from" in result.output
    result = call("--steps", "2", "--part", "distance", "--start-from", str(run / "stage2.pt"))
    assert result.exit_code == 0 and load(run / "distance.pt")["weights"] == {"distance": 1.0}, result.output
    before, after = load(run / "stage2.pt")["average"], load(run / "distance.pt")["average"]
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and all(name.startswith("distance.") for name in changed)
    released.save(tmp_path, build_system(TINY), TINY.to_dict())
    starting = [str(data), str(tmp_path / "tuned"), "--device", "cpu", "--batch", "2", "--part", "stage2", "--steps", "1"]
    result = CliRunner().invoke(command, [*starting, "--start-from", str(tmp_path)])
    assert result.exit_code == 0 and "new there: nothing" in result.output, result.output
    assert load(tmp_path / "tuned" / "autoencoder.pt")["steps"] == 0, "that of the model it starts from"
    result = CliRunner().invoke(command, [*starting, "--start-from", str(data)])
    assert result.exit_code == 1 and "no weights" in result.output and "start from a checkpoint" in result.output
    alone = [str(data), str(tmp_path / "alone"), "--device", "cpu", "--batch", "2", "--part", "stage2", "--steps", "1"]
    result = CliRunner().invoke(command, alone)
    assert result.exit_code == 1 and "there is no" in result.output and "train it, or give --start-from" in result.output, result.output
    (tmp_path / "alone").mkdir()
    shutil.copy(run / "stage1.pt", tmp_path / "alone" / "stage1.previous.pt")
    result = CliRunner().invoke(command, alone)
    assert result.exit_code == 0 and "stage1.previous.pt; new there: nothing" in result.output, result.output
    result = call("--steps", "walk=3")
    assert result.exit_code == 2 and "--steps of walk: the parts are acting, autoencoder, looking, world, stage1" in result.output
    result = call("--steps", "1", "--learning-rate", "walk=3")
    assert result.exit_code == 2 and "--learning-rate of walk: the parts are acting" in result.output
    result = call("--steps", "4", "--part", "stage1", "--learning-rate", "1e-3", "--learning-rate", "stage1=2e-4")
    assert result.exit_code == 0 and "learning_rate 0.0008 → 0.0002" in result.output, result.output
    assert load(run / "stage1.pt")["schedule"]["learning_rate"] == 2e-4
    result = call("--steps", "four")
    assert result.exit_code == 2 and "'four' is no int" in result.output
    monkeypatch.setitem(config.PRESETS, "tiny", replace(TINY, expert_width=32))
    result = call("--steps", "5", "--part", "stage1")
    assert result.exit_code == 1 and "stage1.pt is of another configuration: expert_width 16 there, 32 here" in result.output


def test_the_paper_s_recipe_takes_nothing_from_a_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it trains is to the bit what recordings without labels give; the shipped recipe uses them."""
    from act2goal_ros.learning import camera

    train_tiny(monkeypatch)
    monkeypatch.setattr(camera, "FEWEST_PICTURES", 8)
    told_episodes(tmp_path)
    found = {}
    for name, recipe_name in (("told", "paper"), ("untold", "paper"), ("told", "shipped")):
        run = tmp_path / f"{name}-{recipe_name}"
        arguments = [str(tmp_path / name), str(run), "--device", "cpu", "--batch", "2", "--steps", "1", "--recipe", recipe_name]
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
        assert (run / "looking.pt").exists() == (recipe_name == "shipped")
        found[name, recipe_name] = load(run / "stage2.pt")["model"]
    first, others = found["untold", "paper"], (found["told", "paper"], found["told", "shipped"])
    same = [all(torch.equal(first[key], other[key]) for key in first) for other in others]
    assert same == [True, False]
    mixed = [str(tmp_path / "told"), str(tmp_path / "mixed"), "--recipe", "paper", "--states", str(tmp_path / "told")]
    assert "--states are of a simulator's labels" in CliRunner().invoke(command, mixed).output
    assert not first["expert.projection"].any() and others[1]["expert.projection"].any(), "nor is the camera fitted to its labels"


def test_the_command_starts_several_processes(tmp_path: Path) -> None:
    """Which share autoencoder, latents and both stages."""
    data, run = tmp_path / "data", tmp_path / "run"
    made = [e.__class__(**{**e.__dict__, "frames": e.frames.repeat(8, 1).repeat(8, 2)}) for e in (episode(40, seed) for seed in range(2))]
    write_shard(data / "00000", made)
    arguments = ["train", str(data), str(run), "--processes", "2", "--steps", "1", "--batch", "2", "--device", "cpu"]
    program = [sys.executable, "-m", "act2goal_ros.cli.main", *arguments]
    made_by = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S)
    assert made_by.returncode == 0, made_by.stderr[-2000:]
    for part in ("autoencoder", "stage1", "stage2"):
        assert load(run / f"{part}.pt")["steps"] == 1
    assert "stage1:" in made_by.stderr and "<" in made_by.stderr, "a bar with the time left"


def test_released_weights_come_back(tmp_path: Path) -> None:
    """Large matrices to half precision, everything else to the bit; a damaged file is named."""
    system = build_system(TINY)
    large = {name for name, value in system.state_dict().items() if value.numel() >= released.LARGE}
    released.save(tmp_path, system, TINY.to_dict())
    state = released.load(tmp_path)
    assert ModelConfig.from_dict(state["config"]) == TINY and state["average"].keys() == system.state_dict().keys()
    for name, value in system.state_dict().items():
        torch.testing.assert_close(state["average"][name], value, rtol=1e-3 if name in large else 0, atol=1e-6 if name in large else 0)
    with pytest.raises(ModelError, match=r"no model in .*; `act2goal export .* FOLDER` makes one of its weights"):
        ModelBundle.load(tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"^weights \S+ are damaged: SHA-256 [0-9a-f]{12}, written were [0-9a-f]{12}"):
        released.load(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"weights.safetensors \(\d+ bytes\) cannot be read"):
        released.load(tmp_path)
