"""Finds out how a joint trajectory controller replaces a running trajectory, from its parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.clock import Clock, ClockType
from rclpy.task import Future

from act2goal_ros.control.robot import ControllerConfig
from act2goal_ros.nodes.base import ManagedNode

NAMES = ("allow_trajectory_replacement", "interpolate_from_desired_state", "open_loop_control")
SPLICE, FROM_DESIRED, OPEN_LOOP = NAMES
PERIOD = 0.5  # s between attempts
UNKNOWN = (
    "how {0.name} replaces trajectories is not known: {0.name}/get_parameters has not answered; "
    "or set controller.mode in the robot's file"
)
ADVICE = {
    "measured_state": (
        "the controller {name} restarts each trajectory from the measured state, motion will be rougher than need be; "
        "set in its YAML: {name}: ros__parameters: {key}: true"
    ),
    "splice": (
        "the controller {name} leads in to each splice from one period ahead, motion will be rougher than need be; "
        "set in its YAML: {name}: ros__parameters: {{allow_trajectory_replacement: false, interpolate_from_desired_state: true}}"
    ),
}


class Replacement:
    """The controller's `mode`: splice, desired_state or measured_state; '' until it is known.

    Asks the controller until it answers, unless the robot's file states the mode. on_known is called with the mode, a
    sentence and whether it is a warning. Hand it to own().
    """

    def __init__(self, node: ManagedNode[Any], controller: ControllerConfig, on_known: Callable[[str, str, bool], None]) -> None:
        self._node, self._name, self._on_known = node, controller.name, on_known
        self.mode = "" if controller.mode == "auto" else controller.mode
        self._values: dict[str, ParameterValue] = {}
        self._asked: list[Future[Any]] = []
        if self.mode:
            on_known(self.mode, f"controller {self._name}: {self.mode}, as the robot's file says", False)
            return
        self._client = node.create_client(GetParameters, f"{self._name}/get_parameters")
        self._timer = node.create_timer(PERIOD, self._ask, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy(self) -> None:
        """Stops asking."""
        if hasattr(self, "_timer"):
            self._node.destroy_timer(self._timer)
            self._node.destroy_client(self._client)

    def _ask(self) -> None:
        if self.mode:
            self._timer.cancel()
        elif self._client.service_is_ready():
            # One by one: a node asked for several answers nothing at all when it does not know one of them.
            self._values.clear()
            for unanswered in self._asked:
                self._client.remove_pending_request(unanswered)
            self._asked = [self._client.call_async(GetParameters.Request(names=[name])) for name in NAMES]
            for name, future in zip(NAMES, self._asked, strict=True):
                future.add_done_callback(functools.partial(self._answered, name))

    def _answered(self, name: str, future: Future[Any]) -> None:
        response = None if future.cancelled() else future.result()
        if response is None or self.mode:
            return
        self._values[name] = response.values[0] if response.values else ParameterValue()
        if len(self._values) < len(NAMES):
            return
        self.mode = mode_of(self._values)
        key = FROM_DESIRED if self._values[FROM_DESIRED].type else OPEN_LOOP
        advice = ADVICE.get(self.mode)
        if advice is None:
            self._on_known(self.mode, f"controller {self._name}: {self.mode}", False)
        else:
            self._on_known(self.mode, advice.format(name=self._name, key=key), True)


def mode_of(values: Mapping[str, ParameterValue]) -> str:
    """The mode for the values of the controller's parameters SPLICE, FROM_DESIRED and OPEN_LOOP."""
    if values[SPLICE].bool_value:
        return "splice"
    return "desired_state" if values[FROM_DESIRED].bool_value or values[OPEN_LOOP].bool_value else "measured_state"
