"""The camera node in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from act2goal_msgs.msg import NodeStatus, StopReason
from PIL import Image as Picture
from ros_tools import Probe, new_domain, running, wait_for
from sensor_msgs.msg import CameraInfo, Image

from act2goal_ros.nodes import images, qos, topics
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
