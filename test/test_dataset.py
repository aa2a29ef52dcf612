"""Episodes on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from act2goal_ros.learning.dataset import DatasetError, Episode, read_shard, shards, write_shard


def episode(steps: int, seed: int = 0) -> Episode:
    generator = np.random.default_rng(seed)
    rows = [
        {
            "joints": generator.normal(size=6),
            "velocities": generator.normal(size=6),
            "gripper": np.float32(generator.random()),
            "command": generator.normal(size=7),
            "disturbed": np.bool_(generator.random() < 0.2),
            "cube": generator.normal(size=3),
        }
        | ({"frame": generator.integers(0, 255, (16, 16, 3), np.uint8)} if i % 2 == 0 else {})
        for i in range(steps)
    ]
    return Episode.from_steps(rows, np.zeros(3))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = [episode(7, 1), episode(12, 2)]
    write_shard(tmp_path / "00000", written)
    read = list(read_shard(tmp_path / "00000"))
    assert [len(e) for e in read] == [7, 12]
    assert [e.stride for e in read] == [2, 2]
    for before, after in zip(written, read, strict=True):
        for name in ("frames", "joints", "command", "disturbed", "cube", "target"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_targets_of_each_step_milestones_and_environments_are_kept(tmp_path: Path) -> None:
    made = [episode(7, 1), episode(12, 2)]
    targets = np.arange(36, dtype=np.float32).reshape(12, 3)
    made[1] = replace(made[1], target=targets, environment="cube-double", milestones=(4, 9))
    write_shard(tmp_path / "00000", made)
    first, second = read_shard(tmp_path / "00000")
    assert (first.environment, first.milestones) == ("cube-single", ())
    assert (second.environment, second.milestones) == ("cube-double", (4, 9))
    np.testing.assert_array_equal(first.target, np.zeros((7, 3)))
    np.testing.assert_array_equal(second.target, targets)


def test_shards_with_one_target_an_episode_are_read(tmp_path: Path) -> None:
    """As all were before there were several objects."""
    made = [episode(7, 1), episode(12, 2)]
    write_shard(tmp_path / "00000", made)
    targets = np.array([[0.4, 0.1, 0.02], [0.5, -0.2, 0.02]], np.float32)
    np.save(tmp_path / "00000" / "target.npy", targets)
    (tmp_path / "00000" / "index.json").write_text(json.dumps({"steps": [7, 12], "frames": [4, 6]}))
    read = list(read_shard(tmp_path / "00000"))
    for before, after, target in zip(made, read, targets, strict=True):
        np.testing.assert_array_equal(after.target, np.tile(target, (len(before), 1)))
        np.testing.assert_array_equal(after.joints, before.joints)
        assert (after.environment, after.milestones) == ("cube-single", ())


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [episode(6)])
    index = json.loads((tmp_path / "00000" / "index.json").read_text())
    (tmp_path / "00000" / "index.json").write_text(json.dumps(index | {"format": 3}))
    with pytest.raises(DatasetError, match="format 3, this version reads 1 and 2"):
        list(read_shard(tmp_path / "00000"))


def test_a_half_written_shard_does_not_count(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [episode(6)])
    (tmp_path / "00001.tmp").mkdir()
    (tmp_path / "00001.tmp" / "index.json").write_text("{}")
    assert shards(tmp_path) == [tmp_path / "00000"]


def test_a_shard_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no episode to write, at least 1 is needed"):
        write_shard(tmp_path / "00000", [])
    assert list(tmp_path.iterdir()) == []


def test_no_shards_is_an_error_that_counts(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="0 found, at least 1 needed"):
        shards(tmp_path)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [episode(6)])
    (tmp_path / "00000" / "joints.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match="00000"):
        list(read_shard(tmp_path / "00000"))


def test_an_index_that_disagrees_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [episode(6)])
    (tmp_path / "00000" / "index.json").write_text(json.dumps({"steps": [9], "frames": [3]}))
    with pytest.raises(DatasetError, match="has 6 rows, its index says 9"):
        list(read_shard(tmp_path / "00000"))
