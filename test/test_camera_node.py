"""The camera node in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from act2goal_msgs.msg import NodeStatus, StopReason
from PIL import Image as Picture
from ros_tools import Probe, new_domain, running, wait_for
from sensor_msgs.msg import CameraInfo, Image

from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.camera import described
from act2goal_ros.nodes.trajectories import seconds

CALIBRATION = """
image_width: 48
image_height: 32
camera_name: test
camera_matrix: {rows: 3, cols: 3, data: [40, 0, 24, 0, 40, 16, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [40, 0, 24, 0, 0, 40, 16, 0, 0, 0, 1, 0]}
"""


def test_pictures_are_published_and_their_loss_is_told_and_recovered_from(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rgb = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    for name in ("0.png", "1.png"):
        Picture.fromarray(rgb).save(folder / name)
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    probe = Probe(domain := new_domain())
    frames = probe.listen(Image, topics.IMAGE, qos.SENSOR)
    infos = probe.listen(CameraInfo, topics.CAMERA_INFO, qos.SENSOR)
    settings = {
        "source": str(folder),
        "rate": 20.0,
        "calibration": str(tmp_path / "camera.yaml"),
        "latency": 0.5,
        "frame_id": "front",
    }
    with running("act2goal_ros.nodes.camera", domain, tmp_path / "log", settings):
        probe.wait_active("camera", 40.0)
        wait_for(lambda: len(frames) > 5 and len(infos) > 5, 10.0, "frames")
        assert np.array_equal(images.to_rgb(frames[-1]), rgb) and frames[-1].header.frame_id == "front"
        assert infos[-1].k[0] == 40.0 and (infos[-1].width, infos[-1].height) == (48, 32)
        age = seconds(probe.stamp()) - seconds(frames[-1].header.stamp)
        assert 0.5 <= age < 2.0, "the latency is taken off the stamp"
        data = (folder / "1.png").read_bytes()
        (folder / "1.png").write_bytes(data[:100])
        status = wait_for(lambda: (s := probe.status("camera")) and s.level == NodeStatus.ERROR and s, 10.0, "error")
        assert status.stop_reason.value == StopReason.STALE_IMAGE
        assert "no frame for 0.5 s" in status.message and "1.png: truncated or damaged" in status.message
        (folder / "1.png").write_bytes(data)
        wait_for(lambda: (s := probe.status("camera")) and s.level == NodeStatus.OK, 10.0, "recovery")
    probe.close()


def test_large_pictures_end_at_the_camera_node(tmp_path: Path) -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    rgb[:, 8:56:2] = 100  # every other column of the middle square
    rgb[:, :8] = rgb[:, 56:] = 255
    Picture.fromarray(rgb).save(tmp_path / "a.png")
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    probe = Probe(domain := new_domain())
    frames = probe.listen(Image, topics.IMAGE, qos.SENSOR)
    infos = probe.listen(CameraInfo, topics.CAMERA_INFO, qos.SENSOR)
    settings = {"source": str(tmp_path / "a.png"), "output_size": 24, "calibration": str(tmp_path / "camera.yaml")}
    with running("act2goal_ros.nodes.camera", domain, tmp_path / "log", settings):
        probe.wait_active("camera", 40.0)
        wait_for(lambda: frames and infos, 10.0, "frames")
        assert np.array_equal(images.to_rgb(frames[-1]), np.full((24, 24, 3), 50))
        assert (infos[-1].width, infos[-1].height, infos[-1].k[0]) == (24, 24, 20.0)
        assert "frames of 64 × 48 pixels, published as 24 × 24" in (tmp_path / "log").read_text()
    probe.close()


def test_frames_of_a_topic_are_scaled_and_keep_their_header(tmp_path: Path) -> None:
    probe = Probe(domain := new_domain())
    frames = probe.listen(Image, topics.IMAGE, qos.SENSOR)
    probe.advertise(Image, "driver/image", qos.SENSOR)

    def send(side: tuple[int, int] = (48, 64)) -> Image:
        message = images.to_message(np.full((*side, 3), (10, 20, 30), np.uint8))
        message.encoding, message.header.frame_id = "bgr8", "wrist"
        message.header.stamp = probe.stamp()
        probe.publish("driver/image", message)
        return message

    def told(text: str, *side: tuple[int, int]) -> bool:
        if side:
            send(*side)
        status = probe.status("camera")
        return status is not None and text in status.message

    settings = {"source": "topic:driver/image", "output_size": 24}
    with running("act2goal_ros.nodes.camera", domain, tmp_path / "log", settings):
        probe.wait_active("camera", 40.0)
        wait_for(lambda: told("no frame for 0.5 s: nothing arrives on /driver/image"), 10.0, "silence")
        wait_for(lambda: send() and frames, 10.0, "a frame")
        frames.clear()
        sent = send()
        (seen,) = wait_for(lambda: [f for f in frames if f.header == sent.header], 5.0, "the frame of that header")
        assert np.array_equal(images.to_rgb(seen), np.full((24, 24, 3), (30, 20, 10)))
        wait_for(lambda: told("no frame for 0.5 s: output_size: image of 64 × 20 pixels, 24 × 24 are needed", (20, 64)), 10.0, "small")
        wait_for(lambda: told("frames from topic:driver/image", (48, 64)), 10.0, "recovery")
    probe.close()


def test_its_own_topic_is_no_source(tmp_path: Path) -> None:
    probe = Probe(domain := new_domain())
    with running("act2goal_ros.nodes.camera", domain, tmp_path / "log", {"source": "topic:/image_raw"}):
        status = wait_for(lambda: (s := probe.status("camera")) and s.level == NodeStatus.ERROR and s, 40.0, "error")
        assert "source topic:/image_raw is the topic this node publishes on" in status.message
    probe.close()


def test_the_calibration_of_the_middle_square_projects_to_the_same_picture() -> None:
    calibration = CameraInfo(distortion_model="plumb_bob", d=[0.0] * 5)
    calibration.k = [40.0, 0.0, 30.0, 0.0, 44.0, 20.0, 0.0, 0.0, 1.0]
    calibration.p = [40.0, 0.0, 30.0, 2.0, 0.0, 44.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = described(calibration, (64, 48), 12)
    point = np.array([0.1, -0.2, 1.0])
    u, v, _ = np.reshape(calibration.k, (3, 3)) @ point
    expected = [(u + 0.5 - 8) / 4 - 0.5, (v + 0.5) / 4 - 0.5]  # 8 columns are cut off, 4 × 4 pixels become one
    assert np.allclose((np.reshape(info.k, (3, 3)) @ point)[:2], expected)
    assert np.allclose((np.reshape(info.p, (3, 4)) @ [*point, 0.0])[:2], expected) and info.p[3] == 0.5
    assert list(described(calibration, (64, 48), 0).k) == list(calibration.k)


def test_a_source_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    probe = Probe(domain := new_domain())
    path = tmp_path / "later.png"
    with running("act2goal_ros.nodes.camera", domain, tmp_path / "log", {"source": str(path)}):
        status = wait_for(lambda: (s := probe.status("camera")) and s.level == NodeStatus.ERROR and s, 40.0, "error")
        assert f"there is no device, file or folder {path}" in status.message
        Picture.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "other.png")
        (tmp_path / "other.png").rename(path)
        probe.wait_active("camera", 10.0)
    probe.close()
