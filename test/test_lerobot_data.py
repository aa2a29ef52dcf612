"""LeRobot data sets: what is exported is read again, goes on after an interruption, and what is damaged is named."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch")
pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
pytest.importorskip("av")

from act2goal_ros.cli.data import command  # noqa: E402
from act2goal_ros.control.robot import RobotConfig  # noqa: E402
from act2goal_ros.data.lerobot import LeRobotError, LeRobotFolder  # noqa: E402
from act2goal_ros.data.lerobot_writer import Layout, LeRobotWriter, Rows  # noqa: E402
from act2goal_ros.data.video import VideoError, VideoWriter, read_frames  # noqa: E402
from act2goal_ros.learning.checks import load_episodes  # noqa: E402
from act2goal_ros.learning.dataset import Episode, read_shard, write_shard  # noqa: E402
from act2goal_ros.learning.lerobot import CAMERA, ExportOptions, LeRobotOptions, LeRobotSource, export  # noqa: E402
from act2goal_ros.learning.resample import Grid, RecordingError  # noqa: E402
from act2goal_ros.model.config import PRESETS  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CONFIG = PRESETS["tiny"]
ROBOT = RobotConfig.load("ur5e_sim")
GRID = Grid(frame_tolerance=0.03, joint_gap=0.08)


def made(steps: int, seed: int = 0) -> Episode:
    generator = np.random.default_rng(seed)
    noise = generator.normal(0.0, 0.3, (steps, 20)).cumsum(0) * 0.1
    frames = np.zeros((-(-steps // 2), 128, 128, 3), np.uint8)
    for k, frame in enumerate(frames):
        frame[:] = 60
        frame[40:80, 4 * k % 100 : 4 * k % 100 + 24] = (200, 180, 160)
    return Episode(
        frames=frames,
        joints=noise[:, :6].astype(np.float32),
        velocities=noise[:, 6:12].astype(np.float32),
        gripper=generator.random(steps).astype(np.float32),
        command=np.column_stack([noise[:, 12:18], generator.random(steps)]).astype(np.float32),
        disturbed=generator.random(steps) < 0.3,
        cube=noise[:, :3].astype(np.float32),
        target=noise[:, 3:6].astype(np.float32),
        environment=f"cube-{seed}",
    )


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "00000", [made(41, 1), made(60, 2)])
    write_shard(folder / "00001", [made(33, 3)])
    return folder


def exported(shards: Path, folder: Path, **options: Any) -> LeRobotWriter:
    *_, writer = export(load_episodes(shards, CONFIG), folder, CONFIG, ExportOptions(**options))
    return writer


@pytest.fixture(scope="module")
def dataset(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lerobot") / "set"
    exported(shards, folder)
    return folder


def episodes_of(folder: Path, **options: Any) -> list[Episode]:
    source = LeRobotSource(folder, LeRobotOptions(robot=ROBOT, **options))
    return [source.episode(entry, GRID) for entry in source.data.episodes()]


def test_what_is_exported_is_read_again(dataset: Path) -> None:
    for before, after in zip([made(41, 1), made(60, 2), made(33, 3)], episodes_of(dataset), strict=True):
        assert (len(after), after.environment, after.joint_names) == (len(before), before.environment, ROBOT.joint_names)
        for name in ("joints", "velocities", "gripper"):
            np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=2e-6)
        np.testing.assert_allclose(after.command[1:], before.command[1:], atol=2e-6)
        np.testing.assert_allclose(after.command[0, :6], before.joints[0], atol=1e-6)
        np.testing.assert_array_equal(after.disturbed[1:], before.disturbed[1:])
        assert min(psnr(a, b) for a, b in zip(after.frames, before.frames, strict=True)) > 30
        assert not after.labelled


def test_the_files_are_those_of_the_format(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 20, 3, 41 + 60 + 33)
    assert info["splits"] == {"train": "0:3"}
    joints = [*ROBOT.joint_names, "gripper"]
    assert info["features"]["action"] == {"dtype": "float32", "shape": [7], "names": joints}
    assert info["features"][CAMERA]["info"]["video.codec"] == "av1"
    files = sorted(str(p.relative_to(dataset)) for p in dataset.rglob("*.*") if p.is_file())
    assert files == [
        *(f"data/chunk-000/file-00{n}.parquet" for n in (0, 1)),
        "meta/act2goal.json",
        *(f"meta/episodes/chunk-000/file-00{n}.parquet" for n in (0, 1)),
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        *(f"videos/{CAMERA}/chunk-000/file-00{n}.mp4" for n in (0, 1)),
    ]
    schema = pq.read_schema(dataset / "data/chunk-000/file-000.parquet")
    expected = {"observation.state": pa.list_(pa.float32(), 7), "disturbed": pa.bool_(), "timestamp": pa.float32(), "index": pa.int64()}
    assert {name: schema.field(name).type for name in expected} == expected
    episodes = pq.read_table(dataset / "meta/episodes").to_pylist()
    assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [(0, 41), (41, 101), (101, 134)]
    assert [e[f"videos/{CAMERA}/from_timestamp"] for e in episodes] == pytest.approx([0.0, 2.05, 0.0])
    assert [e["data/file_index"] for e in episodes] == [0, 0, 1]
    pandas = json.loads(pq.read_schema(dataset / "meta/tasks.parquet").metadata[b"pandas"])
    assert pandas["index_columns"] == ["__index_level_0__"]


def test_statistics_are_those_of_all_rows(dataset: Path) -> None:
    stats = json.loads((dataset / "meta/stats.json").read_text())
    actions = np.concatenate([np.vstack([e.command[1:], e.command[-1:]]) for e in (made(41, 1), made(60, 2), made(33, 3))])
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["max"], actions.max(0), atol=1e-6)
    assert stats["action"]["count"] == [134]
    assert np.shape(stats[CAMERA]["mean"]) == (3, 1, 1)
    assert 60 / 255 - 0.01 < stats[CAMERA]["mean"][0][0][0] < 0.4


def test_half_the_rate(shards: Path, tmp_path: Path) -> None:
    exported(shards, tmp_path / "set", fps=10, task="tidy up", codec="h264")
    data = LeRobotFolder(tmp_path / "set")
    entries = data.episodes()
    assert [e.length for e in entries] == [21, 30, 17]
    rows = data.rows(entries[0], ["action", "observation.state", "disturbed"])
    before = made(41, 1)
    np.testing.assert_allclose(rows["observation.state"][:, :6], before.joints[::2], atol=1e-6)
    np.testing.assert_allclose(rows["action"][:-1], before.command[2::2], atol=1e-6)
    np.testing.assert_array_equal(rows["disturbed"][:-1], before.disturbed[1:-1:2] | before.disturbed[2::2])
    assert entries[0].facts["tasks"] == ["tidy up"]


def test_another_rate_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(LeRobotError, match="fps is 30, must be 20 or 10"):
        exported(shards, tmp_path / "set", fps=30)


def test_an_export_goes_on_where_it_was_interrupted(shards: Path, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    interrupted = export(load_episodes(shards, CONFIG), folder, CONFIG, ExportOptions())
    next(interrupted)
    interrupted.close()
    assert not (folder / "meta/info.json").exists()
    (folder / "data/chunk-000/file-001.parquet.part").write_bytes(b"half")
    first = folder / "videos" / CAMERA / "chunk-000/file-000.mp4"
    before = first.stat().st_mtime_ns
    writer = exported(shards, folder)
    assert (writer.episodes, writer.rows) == (3, 134)
    assert first.stat().st_mtime_ns == before
    for name in ("meta/info.json", "meta/stats.json"):
        assert json.loads((folder / name).read_text()) == json.loads((dataset / name).read_text())
    with pytest.raises(LeRobotError, match="export of other shards or with other options"):
        exported(shards, folder, fps=10)
    with pytest.raises(LeRobotError, match="is not empty and not an export"):
        exported(shards, shards)


def foreign(folder: Path, fps: int = 30, lengths: Sequence[int] = (60, 45)) -> Path:
    """A data set as another robot records it: degrees, `.pos`, gripper 0 .. 100, pictures of 192 × 144, another camera's name."""
    names = tuple(f"{name}.pos" for name in ("gripper", *ROBOT.joint_names))
    layout = Layout(
        fps=fps, features={"observation.state": names, "action": names}, camera="observation.images.top", height=144, width=192,
        robot="so100", codec="h264",
    )  # fmt: skip
    writer, unit = LeRobotWriter(folder, layout), []
    for length in lengths:
        t = np.arange(length) / fps
        motion = np.degrees(np.sin(t[:, None] * np.linspace(0.2, 1.0, 6)))
        ahead = np.degrees(np.sin((t + 1 / fps)[:, None] * np.linspace(0.2, 1.0, 6)))
        frames = np.full((length, 144, 192, 3), 40, np.uint8) + (3 * np.arange(length, dtype=np.uint8))[:, None, None, None]
        unit.append(
            Rows("pick", {"observation.state": np.column_stack([30 * t, motion]), "action": np.column_stack([30 * t, ahead])}, frames)
        )
    writer.write(unit)
    writer.finish()
    return folder


FOREIGN: dict[str, Any] = {"degrees": True, "gripper_closed": 100.0}


def test_another_rate_unit_and_order_of_joints_are_read(tmp_path: Path) -> None:
    small = replace(GRID, size=96)
    source = LeRobotSource(foreign(tmp_path / "set"), LeRobotOptions(robot=ROBOT, **FOREIGN))
    for entry, steps in zip(source.data.episodes(), (40, 30), strict=True):
        episode = source.episode(entry, small)
        t = 0.05 * np.arange(steps)
        assert len(episode) == steps
        np.testing.assert_allclose(episode.joints, np.sin(t[:, None] * np.linspace(0.2, 1.0, 6)), atol=2e-4)
        np.testing.assert_allclose(episode.command[:, :6], episode.joints, atol=4e-4)
        np.testing.assert_allclose(episode.gripper, 0.3 * t, atol=1e-6)
        assert episode.frames.shape == (steps // 2, 96, 96, 3)
        np.testing.assert_allclose(episode.frames[:, 48, 48, 0], 40 + 3 * 3 * np.arange(steps // 2), atol=3)


def test_velocities_are_in_degrees_where_joints_are(shards: Path, tmp_path: Path) -> None:
    before = made(41, 1)
    turned = replace(before, joints=np.degrees(before.joints), velocities=np.degrees(before.velocities), command=np.degrees(before.command))
    write_shard(tmp_path / "shards" / "00000", [turned, turned])
    loaded = load_episodes(shards, CONFIG)
    loaded.shards[:], loaded.by_shard[:] = [tmp_path / "shards" / "00000"], [[turned, turned]]
    list(export(loaded, tmp_path / "set", CONFIG, ExportOptions()))
    after = episodes_of(tmp_path / "set", degrees=True)[0]
    np.testing.assert_allclose(after.velocities, before.velocities, atol=1e-5)
    np.testing.assert_allclose(after.joints, before.joints, atol=1e-5)


def test_joints_and_cameras_are_chosen_by_name(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "set")
    with pytest.raises(LeRobotError, match=r"observation.state has no elbow; it has gripper.pos, shoulder_pan_joint.pos"):
        LeRobotSource(folder, LeRobotOptions(robot=ROBOT, joints=("shoulder_pan_joint", "elbow")))
    with pytest.raises(LeRobotError, match="has no camera side; it has observation.images.top"):
        LeRobotSource(folder, LeRobotOptions(robot=ROBOT, cameras=("side",)))
    with pytest.raises(LeRobotError, match="has no observation.joints; it has observation.state, action"):
        LeRobotSource(folder, LeRobotOptions(robot=ROBOT, state="observation.joints"))
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.images.side"] = info["features"]["observation.images.top"]
    (folder / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(LeRobotError, match=r"has 2 cameras .*, choose \(--camera\)"):
        LeRobotSource(folder, LeRobotOptions(robot=ROBOT))


def test_several_cameras_stand_one_above_the_other(tmp_path: Path) -> None:
    """The second is the first one's video again, half a data set ahead."""
    folder, both = foreign(tmp_path / "set", lengths=(60, 60)), ("observation.images.side", "observation.images.top")
    shutil.copytree(folder / "videos" / both[1], folder / "videos" / both[0])
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"][both[0]] = info["features"][both[1]]
    (folder / "meta/info.json").write_text(json.dumps(info))
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    for name in [name for name in table.column_names if name.startswith(f"videos/{both[1]}/")]:
        values = table.column(name).to_pylist()
        table = table.append_column(name.replace(both[1], both[0]), pa.array(values[::-1] if "timestamp" in name else values))
    pq.write_table(table, path)
    made = episodes_of(folder, cameras=both, **FOREIGN)
    top = episodes_of(folder, cameras=both[1:], **FOREIGN)
    for episode, below, above in zip(made, top, top[::-1], strict=True):
        assert episode.frames.shape == (20, 256, 128, 3)
        np.testing.assert_array_equal(episode.frames, np.concatenate([above.frames, below.frames], axis=1))
    with pytest.raises(LeRobotError, match="a camera is given twice"):
        LeRobotSource(folder, LeRobotOptions(robot=ROBOT, cameras=(both[0], both[0])))


def test_pictures_in_the_tables_are_read(tmp_path: Path) -> None:
    """Features of type image: PNG bytes in the rows instead of a video."""
    folder = foreign(tmp_path / "set", fps=20, lengths=(30,))
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.images.top"]["dtype"] = "image"
    (folder / "meta/info.json").write_text(json.dumps(info))
    path = folder / "data/chunk-000/file-000.parquet"
    pictures = []
    for k in range(30):
        buffer = io.BytesIO()
        Image.fromarray(np.full((130, 130, 3), 5 * k, np.uint8)).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pq.read_table(path).append_column("observation.images.top", pa.array(pictures)), path)
    (episode,) = episodes_of(folder, **FOREIGN)
    np.testing.assert_array_equal(episode.frames[:, 0, 0, 0], 10 * np.arange(15))


def without_rows(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 100), path)


def nan_action(folder: Path) -> None:
    path = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = np.array(table.column("action").to_pylist(), np.float32)
    values[70, 3] = np.nan
    at = table.column_names.index("action")
    pq.write_table(table.set_column(at, "action", pa.FixedSizeListArray.from_arrays(values.reshape(-1), 7)), path)


def cut_video(folder: Path) -> None:
    path = folder / "videos/observation.images.top/chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:2000])


DAMAGES = {
    "rows missing": (without_rows, "episode 1: .*file-000.parquet has 40 rows of it, meta/episodes says 45"),
    "nan": (nan_action, "command: nan at step 7, elbow_joint"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_episode_is_skipped_and_named(damage: str, tmp_path: Path) -> None:
    harm, reason = DAMAGES[damage]
    harm(foreign(tmp_path / "set"))
    arguments = ["lerobot", str(tmp_path / "set"), str(tmp_path / "shards"), "--degrees", "--gripper-range", "0", "100"]
    result = CliRunner().invoke(command, arguments)
    assert "1 episodes made, 0 were there, 1 skipped" in result.output
    reasons = " ".join(line for line in result.output.splitlines() if line.startswith("skipped") and "set, episode 1" in line)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(reasons)


def test_a_truncated_video_is_named(tmp_path: Path) -> None:
    cut_video(foreign(tmp_path / "set"))
    with pytest.raises(RecordingError, match="episode 0: .*file-000.mp4 cannot be read"):
        episodes_of(tmp_path / "set", **FOREIGN)


def test_folders_that_are_no_data_set_are_named(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(LeRobotError, match="info.json cannot be read"):
        LeRobotFolder(tmp_path)
    older = tmp_path / "v21"
    shutil.copytree(dataset / "meta", older / "meta")
    info = json.loads((older / "meta/info.json").read_text())
    (older / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    with pytest.raises(LeRobotError, match=r"has version v2\.1, v3\.0 is read"):
        LeRobotFolder(older)
    (older / "meta/info.json").write_text(json.dumps(info))
    (older / "meta/episodes/chunk-000/file-001.parquet").write_bytes(b"PAR1")
    with pytest.raises(LeRobotError, match=r"file-001.parquet cannot be read"):
        LeRobotFolder(older).episodes()
    shutil.rmtree(older / "meta/episodes")
    with pytest.raises(LeRobotError, match="meta/episodes holds no"):
        LeRobotFolder(older).episodes()


def test_there_and_back_by_the_command_line(shards: Path, tmp_path: Path) -> None:
    there = CliRunner().invoke(command, ["export-lerobot", str(shards), str(tmp_path / "set")])
    assert "3 episodes, 134 rows at 20 Hz" in there.output
    back = CliRunner().invoke(command, ["lerobot", str(tmp_path / "set"), str(tmp_path / "back")])
    assert "3 episodes made, 0 were there, 0 skipped" in back.output, back.output
    found = list(read_shard(tmp_path / "back" / "00000"))
    assert [e.source.rpartition("#")[2] for e in found] == ["0", "1", "2"]
    assert (
        "cube-2                          1            0        60" in CliRunner().invoke(command, ["check", str(tmp_path / "back")]).output
    )


def test_frames_of_a_video_are_those_of_their_times(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 30, 64, 64) as writer:
        for k in range(50):
            writer.write(np.full((64, 64, 3), 4 * k, np.uint8))
    found = list(read_frames(path, [10 / 30, 11 / 30 + 0.01, 49 / 30], 0.015))
    np.testing.assert_allclose([f.mean() for f in found], [40, 44, 196], atol=2)
    with pytest.raises(VideoError, match="no picture within 0.010 s of 0.350 s"):
        list(read_frames(path, [0.35], 0.01))
    with pytest.raises(VideoError, match="ends before 1.700 s"):
        list(read_frames(path, [1.7], 0.01))
    with pytest.raises(VideoError, match="both must be even"):
        VideoWriter(path, 30, 63, 64)


@pytest.mark.skipif("LEROBOT_PYTHON" not in os.environ, reason="LEROBOT_PYTHON names no Python with lerobot (benchmarks/lerobot)")
def test_lerobot_itself_agrees() -> None:
    script = ROOT / "benchmarks/lerobot/check_dataset.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([os.environ["LEROBOT_PYTHON"], str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert ", 0 failed" in done.stdout


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_an_encoder_takes_no_realtime_priority(tmp_path: Path, codec: str) -> None:
    before = (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)
    with VideoWriter(tmp_path / "a.mp4", 20, 128, 128, codec) as video:
        for _ in range(3):
            video.write(np.zeros((128, 128, 3), np.uint8))
            policies = {os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")}
            assert not policies & {os.SCHED_FIFO, os.SCHED_RR}
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
