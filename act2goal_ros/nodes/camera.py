"""Publishes the frames of a camera device, a stream, a video file, a picture or a folder of pictures.

Not needed where a camera's own driver, or the simulated arm, publishes image_raw.
topics out: image_raw (rgb8, stamped with the time of exposure), camera_info
parameters: see CameraParameters
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from act2goal_msgs.msg import NodeStatus, StopReason
from rclpy.clock import Clock, ClockType
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from act2goal_ros.data.frames import FrameSource, Grabber, Rgb, open_source
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, param

CHECK_PERIOD = 0.2  # s


@dataclass(frozen=True, kw_only=True)
class CameraParameters(NodeParameters):
    """Parameters of the camera node."""

    source: str = param("/dev/video0", "", "device, number of a device, stream address, video file, picture or folder")
    width: int = param(0, "px", "asked of the device; 0: as it likes", low=0, high=8192)
    height: int = param(0, "px", "asked of the device; 0: as it likes", low=0, high=8192)
    rate: float = param(30.0, "Hz", "asked of a device; kept with files", low=0.1, high=240.0)
    latency: float = param(0.0, "s", "from exposure to arrival; taken off the stamp", low=0.0, high=1.0, runtime=True)
    patience: float = param(0.5, "s", "without a frame until the camera counts as stalled", low=0.05, high=60.0)
    frame_id: str = param("camera", "", "frame the pictures are in")
    calibration: str = param("", "", "camera_info as a YAML file of camera_calibration; empty: uncalibrated")


class CameraNode(ManagedNode[CameraParameters]):
    """The camera node; a thread reads the source and publishes."""

    def __init__(self) -> None:
        super().__init__("camera", CameraParameters)

    def setup(self) -> None:
        self._open().close()
        self._info = load_calibration(self.p.calibration) if self.p.calibration else CameraInfo()
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
        values = {"frames": self._grabber.frames, "reopened": self._grabber.reopened}
        if problem := self._grabber.problem:
            self.report(NodeStatus.ERROR, f"{self.p.source}: {problem}", StopReason.STALE_IMAGE, **values)
        elif self._grabber.frames > 0:
            self.report(NodeStatus.OK, f"frames from {self.p.source}", **values)

    def _publish(self, rgb: Rgb) -> None:
        """Called from the grabber's thread."""
        stamp = Time(nanoseconds=self.get_clock().now().nanoseconds - round(self.p.latency * 1e9))
        header = Header(stamp=stamp.to_msg(), frame_id=self.p.frame_id)
        self._images.publish(images.to_message(rgb, header))
        self._info.header, self._info.height, self._info.width = header, rgb.shape[0], rgb.shape[1]
        self._infos.publish(self._info)

    # private helpers

    def _open(self) -> FrameSource:
        return open_source(self.p.source, self.p.width, self.p.height, self.p.rate)


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
