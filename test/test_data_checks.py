"""Damaged data: left out, counted and named; training goes on with the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_dataset import episode

torch = pytest.importorskip("torch")

from act2goal_ros.learning.batches import AGES, Episodes, Sampler, action_scales  # noqa: E402
from act2goal_ros.learning.checks import load_episodes, report  # noqa: E402
from act2goal_ros.learning.dataset import DatasetError, Episode, write_shard  # noqa: E402
from act2goal_ros.learning.system import System, labelled_error  # noqa: E402
from act2goal_ros.model.config import ModelConfig  # noqa: E402

CONFIG = ModelConfig(world_width=48, world_heads=4, expert_width=32, blocks=2, live_width=8, autoencoder_width=8)


def usable(steps: int = 40, seed: int = 0) -> Episode:
    made = episode(steps, seed)
    return replace(made, frames=np.zeros((-(-steps // 2), 128, 128, 3), np.uint8))


def broken(name: str, step: int, column: int, value: float) -> Episode:
    made = usable()
    values = np.array(getattr(made, name))
    values[step, column] = value
    return replace(made, **{name: values})


DAMAGED = {
    "nan in an action": (broken("command", 7, 2, np.nan), "command: nan at step 7, elbow_joint"),
    "nan in the gripper's action": (broken("command", 7, 6, np.nan), "command: nan at step 7, gripper"),
    "nan in a joint": (broken("joints", 3, 5, np.inf), "joints: inf at step 3, wrist_3_joint"),
    "degrees": (
        broken("joints", 0, 1, -90.0),
        r"joints: -90.0 rad at step 0, shoulder_lift_joint, at most 12.6 rad \(are they degrees\?\)",
    ),
    "too short": (usable(16), "16 steps, at least 17 needed"),
    "other joints": (
        replace(usable(), joint_names=("a", "b", "c", "d", "e", "f")),
        "joints are a, b, c, d, e, f; the configuration has shoulder_pan_joint",
    ),
    "a joint more": (
        replace(usable(), joints=np.zeros((40, 7), np.float32), velocities=np.zeros((40, 7), np.float32)),
        r"joints has shape \(40, 7\), expected \(40, 6\)",
    ),
    "no pictures": (replace(usable(), frames=np.zeros((20, 1, 1, 3), np.uint8)), "was recorded without pictures: only the part acting"),
    "pictures of another size": (
        replace(usable(), frames=np.zeros((20, 64, 64, 3), np.uint8)),
        r"frames has shape \(20, 64, 64, 3\), expected \(20, 128, 128, 3\)",
    ),
    "a frame for every step": (
        replace(usable(), frames=np.zeros((40, 128, 128, 3), np.uint8)),
        r"frames has shape \(40, 128, 128, 3\), expected \(20, 128, 128, 3\)",
    ),
    "a milestone after the end": (replace(usable(), milestones=(3, 40)), "milestone at step 40 of 40"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_episode_is_left_out_and_named(damage: str, tmp_path: Path) -> None:
    made, reason = DAMAGED[damage]
    write_shard(tmp_path / "00000", [usable(40, 1)])
    write_shard(tmp_path / "00001", [made])
    loaded = load_episodes(tmp_path, CONFIG)
    assert [len(group) for group in loaded.by_shard] == [1]
    (skipped,) = loaded.skipped
    assert (skipped.path, skipped.episode) == (tmp_path / "00001", 0)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(skipped.reason)


def test_without_pictures_their_size_does_not_matter(tmp_path: Path) -> None:
    blind = np.zeros((20, 1, 1, 3), np.uint8)
    write_shard(tmp_path / "00000", [replace(usable(40, 1), frames=blind), replace(usable(), frames=blind.repeat(2, 0))])
    write_shard(tmp_path / "00001", [usable(40, 2)])
    loaded = load_episodes(tmp_path, CONFIG, pictures=False)
    assert [len(group) for group in loaded.by_shard] == [1, 1]
    assert [skipped.reason for skipped in loaded.skipped] == ["frames has shape (40, 1, 1, 3), expected (20, 1, 1, 3)"]
    assert [shard.name for shard in load_episodes(tmp_path, CONFIG).shards] == ["00001"]


def test_the_shortest_episode_is_sampled_from(tmp_path: Path) -> None:
    """As those of the simulator in which the cube is at its target from the start."""
    write_shard(tmp_path / "00000", [usable(17, 1), usable(17, 2)])
    episodes = Episodes(tmp_path)
    episodes.latents = [np.zeros((9, 8, 8, 8), np.float16)] * 2
    assert Sampler(episodes, [0, 1], CONFIG, 0).batch(8).goal.shape[0] == 8
    assert np.isfinite(action_scales(episodes, [0, 1], CONFIG)[0]).all()


def test_the_others_of_a_shard_stay(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [usable(40, 1), broken("command", 7, 2, np.nan), usable(44, 2)])
    loaded = load_episodes(tmp_path, CONFIG)
    assert [len(e) for e in loaded.by_shard[0]] == [40, 44]
    assert report(loaded.skipped) == [f"skipped {tmp_path}/00000, episode 1: command: nan at step 7, elbow_joint"]


def truncate(shard: Path, name: str) -> None:
    path = shard / name
    path.write_bytes(path.read_bytes()[:-100])


DAMAGED_SHARDS = {
    "truncated frames": (lambda s: truncate(s, "frames.npy"), "frames.npy: mmap length is greater"),
    "empty file": (lambda s: (s / "joints.npy").write_bytes(b""), "joints.npy: "),
    "missing file": (lambda s: (s / "gripper.npy").unlink(), "gripper.npy"),
    "broken index": (lambda s: truncate(s, "index.json"), "index.json"),
    "index without steps": (lambda s: (s / "index.json").write_text("{}"), "index.json: KeyError: 'steps'"),
    "index of other types": (lambda s: (s / "index.json").write_text('{"steps": ["a"], "frames": ["b"]}'), "unsupported operand"),
    "index that is a list": (lambda s: (s / "index.json").write_text("[]"), "index.json: AttributeError"),
    "index with too few frames": (
        lambda s: (s / "index.json").write_text(json.dumps({"steps": [40], "frames": []})),
        "its index has 0 frames for 1 episodes",
    ),
    "no episodes": (
        lambda s: [np.save(f, np.load(f)[:0]) for f in s.glob("*.npy")] and (s / "index.json").write_text('{"steps": [], "frames": []}'),
        "0 episodes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_SHARDS)
def test_a_damaged_shard_is_left_out_and_named(damage: str, tmp_path: Path) -> None:
    harm, reason = DAMAGED_SHARDS[damage]
    for number in range(3):
        write_shard(tmp_path / f"{number:05d}", [usable(40, number)])
    harm(tmp_path / "00001")
    loaded = load_episodes(tmp_path, CONFIG)
    assert [shard.name for shard in loaded.shards] == ["00000", "00002"]
    (skipped,) = loaded.skipped
    assert (skipped.path.name, skipped.episode) == ("00001", None)
    assert reason in skipped.reason
    assert str(tmp_path) not in skipped.reason or "gripper" in skipped.reason


def test_nothing_left_is_an_error_with_numbers(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [usable(16), broken("command", 7, 2, np.nan)])
    with pytest.raises(DatasetError, match=r"0 usable episodes in 1 shards, at least 1 needed; 2 skipped, first: .*16 steps"):
        load_episodes(tmp_path, CONFIG)


def test_one_episode_is_too_few_to_hold_one_out(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000", [usable()])
    with pytest.raises(DatasetError, match="1 usable episode, at least 2 needed"):
        Episodes(tmp_path).split()


def test_training_goes_on_with_the_rest_and_without_labels(tmp_path: Path) -> None:
    """A damaged episode between two good ones, one of which has no labels: finite losses, and gradients for all labels known."""
    unlabelled = np.full((40, 3), np.nan, np.float32)
    write_shard(
        tmp_path / "00000",
        [replace(usable(40, 1), cube=unlabelled, target=unlabelled), broken("joints", 0, 0, np.nan), usable(40, 2)],
    )
    episodes = Episodes(tmp_path)
    episodes.latents = [np.zeros((20, 8, 8, 8), np.float16)] * 2
    assert len(episodes.all) == 2
    system = System(CONFIG)
    for among, some in (([0], False), ([1], True)):
        batch = Sampler(episodes, among, CONFIG, 0).batch(2)
        assert batch.cube.shape == (2 * len(AGES), 3)
        losses = system.losses(batch)
        assert all(torch.isfinite(value) for value in losses.values())
        assert (losses["cube"] > 0).item() is some
        system.zero_grad()
        sum(losses.values()).backward()
        gradient = system.expert.spotter.offset.weight.grad
        assert torch.isfinite(gradient).all()


def test_only_known_labels_count() -> None:
    found = torch.tensor([[1.0, 1.0], [5.0, 5.0]], requires_grad=True)
    error = labelled_error(found, torch.tensor([[0.0, 0.5], [np.nan, np.nan]]))
    assert error.item() == pytest.approx(0.75)
    error.backward()
    assert found.grad is not None
    assert found.grad[1].tolist() == [0.0, 0.0]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_without_room_is_named_with_bytes_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DatasetError, match=r"00000 needs 2\.\d MB, 1\.0 MB are free"):
        write_shard(tmp_path / "00000", [usable()])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_while_writing_leaves_no_half_shard(tmp_path: Path) -> None:
    """The system refuses bytes beyond a limit, in a process of its own, as a full disk does."""
    code = f"""
import resource
import signal
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_dataset import episode
from act2goal_ros.learning.dataset import DatasetError, write_shard
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_shard(Path({str(tmp_path)!r}) / "00000", [episode(400)])
except DatasetError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "00000 cannot be written" in done.stdout
    assert "it needs 1.2 MB" in done.stdout
    assert list(tmp_path.iterdir()) == []


def sparse_shards(folder: Path, shards: int, episodes: int, steps: int) -> None:
    """Shards whose frames take no room on the disk."""
    for number in range(shards):
        path = folder / f"{number:05d}"
        path.mkdir(parents=True)
        rows = episodes * steps
        for name, shape in {"joints": (6,), "velocities": (6,), "gripper": (), "command": (7,), "cube": (3,), "target": (3,)}.items():
            np.save(path / f"{name}.npy", np.zeros((rows, *shape), np.float32))
        np.save(path / "disturbed.npy", np.zeros(rows, bool))
        frames = np.lib.format.open_memmap(path / "frames.npy", "w+", np.uint8, (rows // 2, 128, 128, 3))
        del frames
        (path / "index.json").write_text(json.dumps({"format": 2, "steps": [steps] * episodes, "frames": [steps // 2] * episodes}))


def test_ten_thousand_episodes_are_learnt_from_without_reading_all_frames(tmp_path: Path) -> None:
    """17 GB of frames in 200 shards, with the usual 1024 open files: memory and what is read stay those of the joints, and of the
    pictures of the batches that are drawn."""
    sparse_shards(tmp_path, shards=200, episodes=50, steps=72)
    code = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
import numpy as np
from act2goal_ros.learning.batches import Episodes, Sampler
from act2goal_ros.model.config import PRESETS
def resident(kind):
    return int(next(l for l in open("/proc/self/status") if l.startswith(kind)).split()[1]) * 1024
before = resident("RssFile")
found = Episodes(Path({str(tmp_path)!r}), config=PRESETS["tiny"])
opened = resident("RssFile") - before
found.latents = [np.broadcast_to(np.float16(0), (36, 16, 8, 8))] * len(found.all)
sampler = Sampler(found, list(range(len(found.all))), PRESETS["tiny"], 0)
before = resident("RssFile")
pictures = sum(sampler.batch(8).shown.nbytes + sampler.batch(8).pictures.nbytes for _ in range(8))
print(len(found.all), len(found.skipped), opened, resident("RssFile") - before, pictures)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, skipped, mapped, drawn, pictures = map(int, done.stdout.split())
    assert (count, skipped) == (10_000, 0)
    small = sum(path.stat().st_size for path in tmp_path.glob("*/*.npy") if path.name != "frames.npy")
    assert sum(path.stat().st_size for path in tmp_path.glob("*/frames.npy")) > 15e9
    assert mapped < 1.5 * small
    assert drawn < pictures + small < 1e9, "bytes of the pictures as float32; they are read as uint8"


def test_more_files_than_the_system_allows_is_an_error_with_numbers(tmp_path: Path) -> None:
    for number in range(30):
        write_shard(tmp_path / f"{number:05d}", [usable(24)])
    code = f"""
import resource
from pathlib import Path
from act2goal_ros.learning.checks import load_episodes
from act2goal_ros.model.config import PRESETS
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
load_episodes(Path({str(tmp_path)!r}), PRESETS["tiny"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs 586 open files, this process may have 200" in done.stderr
