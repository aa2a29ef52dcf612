"""Recordings: bags other tools open, killed writers, full disks, bounds."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.exceptions import EndOfFile
from mcap.reader import make_reader
from mcap.records import Chunk, Message
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from act2goal_ros.data import recording, rollout
from act2goal_ros.data.bag import BagError, BagWriter, Topic, is_complete, read_facts, repair
from act2goal_ros.data.definitions import DefinitionError, message_definition, type_hash
from act2goal_ros.data.recording import MB, Recorder, RecorderLimits, repair_all

TOPICS = (
    Topic("/joint_states", "sensor_msgs/msg/JointState", depth=1, reliable=False),
    Topic("/plan", "act2goal_msgs/msg/Plan", depth=1, transient_local=True),
    Topic("/sim/state", "act2goal_msgs/msg/SimState"),
)
RANDOM = np.random.default_rng(0)
START = 1_800_000_000_000_000_000


TYPES = get_typestore(Stores.EMPTY)
for topic in TOPICS:
    TYPES.register(get_types_from_msg(message_definition(topic.type), topic.type))


def time_of(seconds: int):
    return TYPES.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=0)


def header(seconds: int = 0):
    return TYPES.types["std_msgs/msg/Header"](stamp=time_of(seconds), frame_id="")


def joint_state(k: int) -> bytes:
    none = np.zeros(0)
    message = TYPES.types["sensor_msgs/msg/JointState"](
        header=header(k), name=["a", "b"], position=np.array([0.1 * k, -0.1 * k]), velocity=none, effort=none
    )
    return bytes(TYPES.serialize_cdr(message, "sensor_msgs/msg/JointState"))


def plan() -> bytes:
    message = TYPES.types["act2goal_msgs/msg/Plan"](
        header=header(), plan_id="p1", goal_id="g1", model_hash="", seed=7, frame_offsets=np.array([0.4, 0.8]), dense_frames=2,
        time_to_goal=3.0, duration_ms=40.0, latent_shape=np.zeros(0, np.uint32), latents=np.array([1.0, 2.0], np.float32),
        goal_latent=np.zeros(0, np.float32), start_latent=np.zeros(0, np.float32), previews=[],
    )  # fmt: skip
    return bytes(TYPES.serialize_cdr(message, "act2goal_msgs/msg/Plan"))


def sim_state(size: int) -> bytes:
    """A message of about `size` bytes that does not compress."""
    message = TYPES.types["act2goal_msgs/msg/SimState"](
        header=header(), task="cube", episode=1, episode_time=0.0, success=False, success_once=False, at_rest_and_released=False,
        real_time_factor=1.0, object_positions=RANDOM.random(size // 8), target_positions=np.zeros(0),
    )  # fmt: skip
    return bytes(TYPES.serialize_cdr(message, "act2goal_msgs/msg/SimState"))


def record(directory: Path, count: int = 20, close: bool = True, **facts: str) -> BagWriter:
    writer = BagWriter(directory, TOPICS, {"goal_id": "g1"})
    for k in range(count):
        writer.write("/joint_states", START + k * 8_000_000, joint_state(k), START + k * 8_000_000 - 500)
    writer.write("/plan", START + 10, plan())
    if close:
        writer.close({"outcome": "reached", **facts})
    return writer


def test_rosbags_opens_a_recording_through_its_metadata(tmp_path):
    record(tmp_path / "r")
    with AnyReader([tmp_path / "r"]) as reader:
        assert {c.topic: c.msgcount for c in reader.connections} == {"/joint_states": 20, "/plan": 1, "/sim/state": 0}
        assert reader.duration == 19 * 8_000_000 + 1
        joints = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/joint_states"]
    assert [j.header.stamp.sec for j in joints] == list(range(20))
    assert joints[3].position == pytest.approx([0.3, -0.3])


def test_mcap_ros2_support_decodes_a_recording_and_its_times(tmp_path):
    record(tmp_path / "r")
    with (tmp_path / "r" / "r_0.mcap").open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        messages = list(reader.iter_decoded_messages())
        kinds = {record.name for record in reader.iter_metadata()}
    first = next(m for m in messages if m.channel.topic == "/joint_states")
    assert first.message.log_time == START and first.message.publish_time == START - 500
    plan = next(m.decoded_message for m in messages if m.channel.topic == "/plan")
    assert plan.plan_id == "p1" and list(plan.latents) == [1.0, 2.0]
    assert kinds == {"act2goal", "rosbag2"}
    assert first.channel.metadata["topic_type_hash"] == type_hash("sensor_msgs/msg/JointState")
    assert yaml.safe_load(first.channel.metadata["offered_qos_profiles"])[0]["reliability"] == "best_effort"


def test_the_metadata_is_what_rosbag2_writes(tmp_path):
    record(tmp_path / "r")
    info = yaml.safe_load((tmp_path / "r" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["version"] == 9 and info["storage_identifier"] == "mcap"
    assert info["relative_file_paths"] == ["r_0.mcap"] and info["message_count"] == 21
    assert info["custom_data"] == {"goal_id": "g1", "outcome": "reached"}
    plan = next(t for t in info["topics_with_message_count"] if t["topic_metadata"]["name"] == "/plan")["topic_metadata"]
    assert plan["type_description_hash"] == type_hash("act2goal_msgs/msg/Plan") and plan["type_description_hash"].startswith("RIHS01_")
    assert plan["offered_qos_profiles"][0]["durability"] == "transient_local"
    assert "&" not in (tmp_path / "r" / "metadata.yaml").read_text()  # no YAML aliases


def test_definitions_carry_every_type_within_and_name_what_is_missing():
    text = message_definition("act2goal_msgs/msg/ControlStatus")
    for inner in ("std_msgs/Header", "builtin_interfaces/Time", "act2goal_msgs/StopReason", "diagnostic_msgs/KeyValue"):
        assert f"MSG: {inner}\n" in text
    with pytest.raises(DefinitionError, match="act2goal_msgs/msg/Nothing"):
        message_definition("act2goal_msgs/msg/Nothing")


def test_a_directory_that_exists_is_not_overwritten(tmp_path):
    record(tmp_path / "r")
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "r", TOPICS)
    with pytest.raises(BagError, match="'gzip'"):
        BagWriter(tmp_path / "s", TOPICS, compression="gzip")


def test_a_bag_being_written_is_not_repaired_and_one_left_behind_is(tmp_path):
    writer = record(tmp_path / "r", close=False)
    writer.flush()
    assert repair(tmp_path / "r") is None and not is_complete(tmp_path / "r")
    writer.abort()
    done = repair(tmp_path / "r", {"outcome": "interrupted"})
    assert done is not None and done.messages == 21 and done.lost_bytes == 0
    assert read_facts(tmp_path / "r") == {"goal_id": "g1", "outcome": "interrupted"}
    with AnyReader([tmp_path / "r"]) as reader:
        assert reader.message_count == 21
    assert repair(tmp_path / "r") is None


def whole_chunks(content: bytes, end: int) -> int:
    """Messages in the chunks of an MCAP file that end before `end`."""
    messages, stream = 0, io.BytesIO(content)
    with contextlib.suppress(EndOfFile):
        for record in StreamReader(stream, emit_chunks=True).records:
            if isinstance(record, Chunk) and stream.tell() <= end:
                messages += sum(isinstance(r, Message) for r in breakup_chunk(record))
    return messages


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.0, 1.0, exclude_max=True), flip=st.booleans())
def test_a_file_cut_or_damaged_anywhere_is_repaired_to_a_readable_prefix(tmp_path_factory, share, flip):
    directory = tmp_path_factory.mktemp("cut") / "r"
    writer = BagWriter(directory, TOPICS[:1], {"goal_id": "g1"}, chunk_bytes=1000)
    for k in range(100):
        writer.write("/joint_states", START + k, joint_state(k))
    writer.flush()
    writer.abort()
    content = writer.path.read_bytes()
    at = int(share * len(content))
    writer.path.write_bytes(content[:at] + (bytes([content[at] ^ 0xFF]) + content[at + 1 :] if flip else b""))
    done = repair(directory)
    assert done is not None
    with Reader(directory) as reader:
        stamps = [time for _, time, _ in reader.messages()]
    assert stamps == [START + k for k in range(done.messages)]
    if flip:
        assert whole_chunks(content, at) <= done.messages <= 100
    else:
        assert done.messages == whole_chunks(content, at)


WRITER = """
    import sys, time
    from pathlib import Path
    from test_recording import TOPICS, joint_state
    from act2goal_ros.data.recording import Recorder, RecorderLimits
    recorder = Recorder(Path(sys.argv[1]), TOPICS, RecorderLimits(min_free_bytes=0))
    recorder.begin("rollout_20260101-000000_g1", {"goal_id": "g1"})
    k = 0
    while True:
        recorder.write("/joint_states", time.time_ns(), joint_state(k))
        k += 1
        print(k, flush=True)
        time.sleep(0.002)
"""


def test_a_recording_killed_with_sigkill_is_readable_after_repair(tmp_path):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if int(line) >= 600:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    written = max(int(line) for line in ("600", *process.stdout.read().split()))
    done = repair_all(tmp_path)
    assert len(done) == 1 and not isinstance(done[0], str)
    lost = written - done[0].messages
    assert 0 <= lost <= 0.45 / 0.002, f"{lost} of {written} messages lost"
    found = rollout.find(tmp_path)
    assert found.outcome == "interrupted" and found.messages == done[0].messages
    assert sum(1 for _ in rollout.read(found.directory, ["joint_states"])) == found.messages


def recorder_in(root: Path, logs: list[str] | None = None, **limits) -> Recorder:
    limits = {"min_free_bytes": 0, "flush_period": 0.02, **limits}
    return Recorder(root, TOPICS, RecorderLimits(**limits), (logs if logs is not None else []).append)


def run_one(recorder: Recorder, name: str, count: int = 50, size: int = 0) -> None:
    recorder.begin(name, {"goal_id": name})
    for k in range(count):
        recorder.write("/joint_states", START + k, joint_state(k))
        if size:
            recorder.write("/sim/state", START + k, sim_state(size))
    recorder.end({"outcome": "reached"})


def wait_for(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within the time allowed"
        time.sleep(0.01)


def test_the_recorder_writes_rollouts_one_after_the_other(tmp_path):
    recorder = recorder_in(tmp_path)
    recorder.write("/joint_states", START, joint_state(0))  # between rollouts: not an error, not recorded
    for number in (1, 2):
        run_one(recorder, f"rollout_20260101-00000{number}_g")
    recorder.close()
    found = [rollout.describe(d) for d in rollout.directories(tmp_path)]
    assert [(r.outcome, r.messages, r.complete) for r in found] == [("reached", 50, True)] * 2
    assert recorder.dropped == {} and recorder.fault == ""


def test_the_oldest_rollouts_make_room_and_are_named(tmp_path):
    logs: list[str] = []
    recorder = recorder_in(tmp_path, logs, max_bytes=MB)
    for number in range(5):
        run_one(recorder, f"rollout_20260101-00000{number}_g", count=40, size=10_000)
    recorder.close()
    left = rollout.directories(tmp_path)
    assert [d.name[-3] for d in left] == ["3", "4"] or [d.name[-3] for d in left] == ["2", "3", "4"]
    assert any("rollout_20260101-000000_g" in line and "1 MB" in line for line in logs)
    assert recorder.fault == ""


def test_foreign_directories_are_never_removed(tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.mcap").write_bytes(b"x" * 1000)
    record(tmp_path / "rollout_20260101-000000_a")
    record(tmp_path / "rollout_20260101-000001_b", close=False).flush()
    removed = rollout.make_room(tmp_path, 0)
    assert [path.name for path, _ in removed] == ["rollout_20260101-000000_a"]
    assert (tmp_path / "holiday" / "photo.mcap").exists()
    assert (tmp_path / "rollout_20260101-000001_b").exists()  # not finished: may be in the making


def test_a_rollout_larger_than_all_room_is_cut_and_says_so(tmp_path):
    logs: list[str] = []
    recorder = recorder_in(tmp_path, logs, max_bytes=MB)
    recorder.begin("rollout_20260101-000000_g", {})
    for k in range(30):
        recorder.write("/sim/state", START + k, sim_state(100_000))
        time.sleep(0.01)
    wait_for(lambda: recorder.fault)
    recorder.close()
    assert "this rollout alone has" in recorder.fault and "may have 1 MB" in recorder.fault
    found = rollout.find(tmp_path)
    assert found.outcome == "cut" and 5 <= found.messages < 30
    assert recorder.dropped["not_recording"] > 0


def test_too_little_free_disk_stops_the_recording_until_there_is_room(tmp_path):
    logs: list[str] = []
    recorder = recorder_in(tmp_path, logs, min_free_bytes=1 << 60)
    run_one(recorder, "rollout_20260101-000000_g")
    wait_for(lambda: recorder.fault)
    assert "MB free on the disk, at least" in recorder.fault and any("not recording" in line for line in logs)
    recorder.limits = RecorderLimits(min_free_bytes=0, flush_period=0.02)
    run_one(recorder, "rollout_20260101-000001_g")
    recorder.close()
    assert recorder.fault == "" and rollout.find(tmp_path).messages == 50
    assert any("recording again" in line for line in logs)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_reported_and_what_was_written_is_readable(small_disk):
    logs: list[str] = []
    recorder = recorder_in(small_disk, logs)
    recorder.begin("rollout_20260101-000000_g", {})
    for k in range(40):
        recorder.write("/sim/state", START + k, sim_state(100_000))
        time.sleep(0.01)
    wait_for(lambda: recorder.fault)
    assert "No space left on device" in recorder.fault
    recorder.close()
    file = next(small_disk.glob("*/*.mcap"))
    aside = small_disk.parent / "aside" / file.parent.name
    aside.mkdir(parents=True)
    (aside / file.name).write_bytes(file.read_bytes())
    done = repair(aside)
    assert done is not None and 5 <= done.messages < 40


def test_what_the_disk_cannot_take_in_time_is_dropped_and_counted(tmp_path):
    recorder = recorder_in(tmp_path, queue_bytes=1000, flush_period=1.0)
    recorder.begin("rollout_20260101-000000_g", {})
    for k in range(100):
        recorder.write("/joint_states", START + k, joint_state(k))
    recorder.close()
    dropped = recorder.dropped["queue_full"]
    assert dropped > 0 and rollout.find(tmp_path).messages == 100 - dropped


def test_repair_all_goes_on_after_a_directory_it_cannot_repair(tmp_path, monkeypatch):
    for name in ("a", "b"):
        record(tmp_path / f"rollout_20260101-000000_{name}", close=False).abort()
    real = recording.repair

    def fragile(directory, facts):
        if directory.name.endswith("a"):
            raise OSError(28, "No space left on device")
        return real(directory, facts)

    monkeypatch.setattr(recording, "repair", fragile)
    first, second = repair_all(tmp_path)
    assert isinstance(first, str) and "cannot be repaired" in first and not isinstance(second, str)


def test_rollouts_are_found_by_part_of_their_name(tmp_path):
    for name in ("20260101-000000_cup", "20260101-000001_cube"):
        record(tmp_path / f"rollout_{name}")
    assert rollout.find(tmp_path).name.endswith("cube")
    assert rollout.find(tmp_path, "cup").name.endswith("cup")
    assert rollout.find(tmp_path, str(tmp_path / "rollout_20260101-000000_cup")).facts["goal_id"] == "g1"
    with pytest.raises(BagError, match="it names 2"):
        rollout.find(tmp_path, "cu")
    with pytest.raises(BagError, match="it names 0: none"):
        rollout.find(tmp_path, "plate")
    with pytest.raises(BagError, match="no finished rollout"):
        rollout.find(tmp_path / "nowhere")


def test_names_do_not_collide_and_are_safe(tmp_path):
    first = rollout.new_name(tmp_path, 1.8e9, "goal/../7")
    assert rollout.NAME.fullmatch(first) and "/" not in first
    (tmp_path / first).mkdir()
    assert rollout.new_name(tmp_path, 1.8e9, "goal/../7") == f"{first}.2"
