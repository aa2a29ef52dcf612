"""`act2goal data sim`: shards of the scripted expert, made in processes of their own, kept, and none where every episode failed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from act2goal_ros import paths  # noqa: E402
from act2goal_ros.cli import data  # noqa: E402
from act2goal_ros.learning.dataset import read_shard  # noqa: E402
from act2goal_ros.learning.simulate import Recorder  # noqa: E402
from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.look import RANGE, SHADOWED  # noqa: E402
from act2goal_ros.sim.tasks import free_task  # noqa: E402


def test_shards_are_made_by_workers_and_finished_ones_are_kept(tmp_path: Path) -> None:
    arguments = ["sim", str(tmp_path), "--env", "cube-single", "--episodes", "20", "--workers", "1", "--no-pictures", "--first", "7"]
    made = CliRunner().invoke(data.command, arguments)
    assert made.exit_code == 0, made.output
    (shard,) = tmp_path.glob("[0-9]*")
    assert shard.name == "00007"
    episodes = list(read_shard(shard))
    assert 17 <= len(episodes) <= 20, "the expert seldom fails"
    assert all(e.environment == "cube-single" and e.labelled and len(e) > 20 for e in episodes)
    before = (shard / "index.json").stat().st_mtime_ns
    again = CliRunner().invoke(data.command, arguments)
    assert again.exit_code == 0 and (shard / "index.json").stat().st_mtime_ns == before
    checked = CliRunner().invoke(data.command, ["check", str(tmp_path), "--no-pictures"])
    assert f"cube-single {'':<12}{len(episodes):9d} {len(episodes):12d}" in checked.output, checked.output


def test_a_shard_of_failures_is_not_written_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_recorder", lambda *_: SimpleNamespace(record=lambda seed: None))
    settings = ("cube-single", None, 128, 0.0, 0.0, False)
    assert data._record_shard((tmp_path / "00000", 0, settings)) == data.EPISODES_PER_SHARD
    assert not list(tmp_path.iterdir())


def test_a_policy_must_suit_the_data(tmp_path: Path) -> None:
    checkpoint = tmp_path / "acting.pt"
    checkpoint.touch()
    outcome = CliRunner().invoke(data.command, ["sim", str(tmp_path / "made"), "--policy", str(checkpoint)])
    assert outcome.exit_code == 2 and "with pictures a model's folder drives" in outcome.output


def test_an_exported_model_drives_without_pictures() -> None:
    """Its turns are flagged."""
    recorder = data._recorder("cube-single", paths.model("act2goal-tiny"), 128, 0.0, 0.0, False)
    episode = recorder.record(5)
    assert episode is not None and 0 < episode.disturbed.sum() < len(episode.disturbed)


@pytest.mark.parametrize(("shares", "look"), [((1.0, 0.0), RANGE), ((0.0, 1.0), SHADOWED), ((0.0, 0.0), None)])
def test_the_share_of_random_looks(shares: tuple[float, float], look: object) -> None:
    arm = SimulatedArm(free_task("cube-single"))
    Recorder(arm, randomised=shares[0], shadowed=shares[1], pictures=False).record(3)
    assert arm.look is look


def test_shares_of_looks_are_of_all_episodes(tmp_path: Path) -> None:
    arguments = ["sim", str(tmp_path / "made"), "--randomised", "0.7", "--shadowed", "0.4"]
    outcome = CliRunner().invoke(data.command, arguments)
    assert outcome.exit_code == 2 and "--randomised 0.7 and --shadowed 0.4" in outcome.output and not (tmp_path / "made").exists()
