"""Listens to the whole graph and keeps what a display shows of it; publishes nothing and is no part of the graph."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from act2goal_msgs.msg import ControlStatus, Goal, NodeStatus, Plan, Progress, SimState, Stop
from rclpy.context import Context
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from act2goal_ros.control.goals import GoalState
from act2goal_ros.control.oversight import FAULTY
from act2goal_ros.control.stop import StopReason
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import values_of
from act2goal_ros.nodes.latest import Latest

WINDOW = 3.0  # s over which rates are taken
SILENT = 2.0  # s without a heartbeat until a node is shown as silent


@dataclass(frozen=True)
class NodeRow:
    """A node's heartbeat in words. level: 0 OK, 1 warning, 2 error, 3 starting."""

    name: str
    state: str
    level: int
    message: str
    drops: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a display shows. NaN: not known. Rates in Hz, latencies in ms, times in s."""

    stop: tuple[str, str] | None = None  # reason and detail while the arm is stopped
    supervised: bool = False
    goal_state: str = "NONE"
    goal_id: str = ""
    goal_source: str = ""
    elapsed: float = float("nan")
    progress: float = float("nan")
    time_to_goal: float = float("nan")
    control: str = ""
    control_reason: tuple[str, str] | None = None
    rates: dict[str, float] = field(default_factory=dict)
    latencies: dict[str, tuple[float, float]] = field(default_factory=dict)  # p50, p99
    missed: int = 0
    ticks: int = 0
    backend: str = ""
    real_time_factor: float = float("nan")
    success: bool | None = None
    nodes: tuple[NodeRow, ...] = ()
    live: images.Rgb | None = None
    goal_image: images.Rgb | None = None


class _Rate:
    """Counts messages of a topic without unpacking them."""

    def __init__(self, node: Node, kind: Any, topic: str, profile: Any) -> None:
        self._times: deque[float] = deque(maxlen=1000)
        node.create_subscription(kind, topic, lambda _: self._times.append(time.monotonic()), profile, raw=True)

    @property
    def hz(self) -> float:
        """Messages a second over WINDOW; 0 when none came."""
        since = time.monotonic() - WINDOW
        while self._times and self._times[0] < since:
            self._times.popleft()
        return len(self._times) / WINDOW


class Listener:
    """A node with a context of its own; spin() hears what there is to hear."""

    def __init__(self, namespace: str = "", preview: bool = False) -> None:
        self._context = Context()
        self._context.init()
        self._node = Node("display", namespace=namespace, context=self._context, start_parameter_services=False)
        self._executor = EventsExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._beats: dict[str, tuple[NodeStatus, float]] = {}
        self._goal_since = time.monotonic()
        self._goal = Goal()
        node = self._node
        self._stop = Latest(node, Stop, topics.STOP, qos.LATCHED)
        self._progress = Latest(node, Progress, topics.PROGRESS, qos.SENSOR)
        self._control = Latest(node, ControlStatus, topics.CONTROL_STATUS, qos.COMMAND)
        self._sim = Latest(node, SimState, topics.SIM_STATE, qos.SENSOR)
        self._image = Latest(node, Image, topics.IMAGE, qos.SENSOR) if preview else None
        self._rates = {
            "camera": _Rate(node, Image, topics.IMAGE, qos.SENSOR),
            "joint states": _Rate(node, JointState, topics.JOINT_STATES, qos.SENSOR),
            "imagination": _Rate(node, Plan, topics.PLAN, qos.LATCHED),
        }
        node.create_subscription(NodeStatus, topics.STATUS, self._beat, qos.STATUS)
        node.create_subscription(Goal, topics.GOAL, self._on_goal, qos.LATCHED)

    def spin(self, seconds: float) -> None:
        """Listens for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.2))

    def close(self) -> None:
        """Ends listening."""
        self._executor.remove_node(self._node)
        self._node.destroy_node()
        self._context.try_shutdown()

    def _beat(self, status: NodeStatus) -> None:
        self._beats[status.node] = (status, time.monotonic())

    def _on_goal(self, goal: Goal) -> None:
        if goal.goal_id != self._goal.goal_id:
            self._goal_since = time.monotonic()
        self._goal = goal

    def snapshot(self) -> Snapshot:
        """Everything heard so far, as it stands now."""
        control, progress = self._control.get(SILENT), self._progress.get(SILENT)
        stop, sim, goal = self._stop.get(), self._sim.get(SILENT), self._goal
        active = goal.state == Goal.ACTIVE
        mine = progress is not None and progress.goal_id == goal.goal_id and goal.state != Goal.NONE
        live = self._image.get(SILENT) if self._image is not None else None
        return Snapshot(
            stop=(_reason(stop.reason.value), stop.detail) if stop is not None and stop.active else None,
            supervised=stop is not None,
            goal_state=GoalState(goal.state).name,
            goal_id=goal.goal_id,
            goal_source=goal.source,
            elapsed=time.monotonic() - self._goal_since if active else float("nan"),
            progress=progress.progress if progress is not None and mine else float("nan"),
            time_to_goal=progress.time_to_goal if progress is not None and mine else float("nan"),
            **_of_control(control),
            rates={name: rate.hz for name, rate in self._rates.items()} | _rates_of(control),
            real_time_factor=sim.real_time_factor if sim is not None else float("nan"),
            success=sim.success if sim is not None else None,
            nodes=tuple(self._row(name) for name in sorted(self._beats)),
            live=images.to_rgb(live) if live is not None else None,
            goal_image=images.to_rgb(goal.image) if self._image is not None and goal.image.height else None,
        )

    def _row(self, name: str) -> NodeRow:
        status, heard = self._beats[name]
        values = values_of(status)
        drops = {key[6:]: int(value) for key, value in values.items() if key.startswith("drops.")}
        if (silent := time.monotonic() - heard) > SILENT:
            return NodeRow(name, "silent", FAULTY, f"no heartbeat for {silent:.0f} s", drops)
        return NodeRow(name, values.get("state", "?"), status.level, status.message, drops)


def _reason(value: int) -> str:
    return StopReason(value).name if value in set(StopReason) else str(value)


def _of_control(control: ControlStatus | None) -> dict[str, Any]:
    if control is None:
        return {}
    states = {getattr(ControlStatus, name): name for name in ("IDLE", "RUNNING", "BRAKING", "HOLDING")}
    reason = control.stop_reason.value
    return {
        "control": states.get(control.state, str(control.state)),
        "control_reason": (_reason(reason), control.stop_detail) if reason != StopReason.NONE else None,
        "latencies": {
            "policy tick": (control.tick_ms_p50, control.tick_ms_p99),
            "camera → command": (control.delay_ms_p50, control.delay_ms_p99),
        },
        "missed": control.missed_ticks,
        "ticks": control.ticks,
        "backend": control.backend,
    }


def _rates_of(control: ControlStatus | None) -> dict[str, float]:
    return {} if control is None else {"policy": control.tick_hz, "commands": control.command_hz}
