"""Publishes the frames of a camera device, a stream, a video file, a picture, a folder of pictures or another node's topic.

Not needed where a camera's own driver, or the simulated arm, publishes image_raw as small as the model needs it. With output_size
it is the edge of the graph: large pictures end here, cut to the middle square and averaged down once for all nodes.
topics in: the one named by source topic:<name>, any encoding of nodes/images.py
topics out: image_raw (rgb8, stamped with the time of exposure; of a topic's frames, with their own header), camera_info
parameters: see CameraParameters
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from act2goal_msgs.msg import NodeStatus, StopReason
from rclpy.clock import Clock, ClockType
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from act2goal_ros.control.watchdog import Latest
from act2goal_ros.data.frames import FrameSource, Grabber, Rgb, SourceError, open_source
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, param

CHECK_PERIOD = 0.2  # s
TOPIC = "topic:"


@dataclass(frozen=True, kw_only=True)
class CameraParameters(NodeParameters):
    """Parameters of the camera node."""

    source: str = param("/dev/video0", "", "device, its number, stream address, video file, picture, folder, or topic:<name>")
    width: int = param(0, "px", "asked of the device; 0: as it likes", low=0, high=8192)
    height: int = param(0, "px", "asked of the device; 0: as it likes", low=0, high=8192)
    output_size: int = param(
        0, "px", "height and width published: the middle square, averaged down; 0: as it comes", low=0, high=8192
    )
    rate: float = param(30.0, "Hz", "asked of a device; kept with files", low=0.1, high=240.0)
    latency: float = param(0.0, "s", "from exposure to arrival; taken off the stamp", low=0.0, high=1.0, runtime=True)
    patience: float = param(0.5, "s", "without a frame until the camera counts as stalled", low=0.05, high=60.0)
    frame_id: str = param("camera", "", "frame the pictures are in")
    calibration: str = param("", "", "camera_info as a YAML file of camera_calibration; empty: uncalibrated")


class TopicSource:
    """The newest frame of a topic; `header` belongs to the last one read. What replaces one not yet read is counted."""

    paced = True

    def __init__(self, node: ManagedNode[Any], topic: str, patience: float) -> None:
        if node.resolve_topic_name(topic) == node.resolve_topic_name(topics.IMAGE):
            raise ValueError(f"source topic:{topic} is the topic this node publishes on; remap {topics.IMAGE}")
        self._node, self._topic, self._patience = node, topic, patience
        self._newest: Latest[Image] = Latest()
        self.header = Header()
        node.own(node.create_subscription(Image, topic, self._arrived, qos.EDGE))

    def read(self) -> Rgb:
        """Waits for the next; SourceError when none comes or it is no picture."""
        message = self._newest.take(self._patience)
        if message is None:
            raise SourceError(f"nothing arrives on {self._node.resolve_topic_name(self._topic)}")
        self.header = message.header
        try:
            return images.to_rgb(message)
        except images.ImageError as error:
            raise SourceError(str(error)) from error

    def close(self) -> None:
        """The subscription goes with the node's configuration."""

    def _arrived(self, message: Image) -> None:
        if self._node.is_active and not self._newest.put(message):
            self._node.count("frame_replaced")


class CameraNode(ManagedNode[CameraParameters]):
    """The camera node; a thread reads the source and publishes."""

    def __init__(self) -> None:
        super().__init__("camera", CameraParameters)

    def setup(self) -> None:
        self._topic = self._topic_source()
        self._open().close()
        self._sent, self._seen_size = (0, "0.0"), (0, 0)
        self._calibration = load_calibration(self.p.calibration) if self.p.calibration else None
        self._images = self.own(self.create_publisher(Image, topics.IMAGE, qos.SENSOR))
        self._infos = self.own(self.create_publisher(CameraInfo, topics.CAMERA_INFO, qos.SENSOR))

    def start(self) -> None:
        self._grabber = Grabber(self._open, self._publish, 1.0 / self.p.rate, self.p.patience)
        self._checks = self.create_timer(CHECK_PERIOD, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._seen = self._grabber.frames

    def halt(self) -> None:
        self.destroy_timer(self._checks)
        self._grabber.close()

    # callbacks

    def _check(self) -> None:
        self._grabber.check()
        frames, newest = self._sent
        values = {"frames": frames, "newest": newest, "reopened": self._grabber.reopened}
        if problem := self._grabber.problem:
            self.report(NodeStatus.ERROR, f"{self.p.source}: {problem}", StopReason.STALE_IMAGE, **values)
        elif frames > 0:
            self.report(NodeStatus.OK, f"frames from {self.p.source}", **values)

    def _publish(self, rgb: Rgb) -> None:
        """Called from the grabber's thread."""
        header = self._header() if self._topic is None else self._topic.header
        size, side = (rgb.shape[1], rgb.shape[0]), self.p.output_size
        if size != self._seen_size:
            self._seen_size = size
            self._info = described(self._calibration, size, side)
            self.get_logger().info(f"frames of {size[0]} × {size[1]} pixels" + (f", published as {side} × {side}" if side else ""))
        try:
            small = images.middle_square(rgb, side) if side else rgb
        except images.ImageError as error:
            raise SourceError(f"output_size: {error}") from error
        self._images.publish(images.to_message(small, header))
        self._info.header = header
        self._infos.publish(self._info)
        self._sent = self._sent[0] + 1, f"{header.stamp.sec}.{header.stamp.nanosec:09d}"

    # private helpers

    def _header(self) -> Header:
        stamp = Time(nanoseconds=self.get_clock().now().nanoseconds - round(self.p.latency * 1e9))
        return Header(stamp=stamp.to_msg(), frame_id=self.p.frame_id)

    def _topic_source(self) -> TopicSource | None:
        name = self.p.source.removeprefix(TOPIC)
        return TopicSource(self, name, self.p.patience) if name != self.p.source else None

    def _open(self) -> FrameSource:
        return self._topic or open_source(self.p.source, self.p.width, self.p.height, self.p.rate)


def described(calibration: CameraInfo | None, size: tuple[int, int], side: int) -> CameraInfo:
    """camera_info of frames of `size` (width, height) pixels, or with a `side` of their middle square, scaled to it."""
    width, height = size
    info = CameraInfo(height=side or height, width=side or width)
    if calibration is None:
        return info
    info.distortion_model, info.d, info.r = calibration.distortion_model, calibration.d, calibration.r
    square = min(size)
    scale = side / square if side else 1.0
    left, top = ((width - square) // 2, (height - square) // 2) if side else (0, 0)
    across, down = left - 0.5 * (1.0 - 1.0 / scale), top - 0.5 * (1.0 - 1.0 / scale)  # a pixel's centre is at a whole number
    change = np.array([[scale, 0.0, -scale * across], [0.0, scale, -scale * down], [0.0, 0.0, 1.0]])
    info.k = (change @ np.reshape(calibration.k, (3, 3))).ravel()
    info.p = (change @ np.reshape(calibration.p, (3, 4))).ravel()
    return info


def load_calibration(path: str) -> CameraInfo:
    """A camera_info from the file that camera_calibration writes. Raises ValueError naming what is missing or wrong."""
    try:
        content: dict[str, Any] = yaml.safe_load(Path(path).expanduser().read_text())
        info = CameraInfo(distortion_model=str(content["distortion_model"]))
        info.d = [float(x) for x in content["distortion_coefficients"]["data"]]
        info.k = [float(x) for x in content["camera_matrix"]["data"]]
        info.r = [float(x) for x in content["rectification_matrix"]["data"]]
        info.p = [float(x) for x in content["projection_matrix"]["data"]]
    except OSError as error:
        raise ValueError(f"calibration {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise ValueError(f"calibration {path}: {type(error).__name__}: {error}") from error
    return info


def main() -> None:
    run(CameraNode)


if __name__ == "__main__":
    main()
