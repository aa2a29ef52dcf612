"""The lifecycle base of all nodes.

publishes `status` (NodeStatus: at HEARTBEAT Hz and on every change of level or stop reason; values carry lifecycle
state, process, scheduling and counted drops). parameters: the node's schema with NodeParameters, and `autostart` (bool):
come up without a supervisor.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import rclpy
from act2goal_msgs.msg import NodeStatus, StopReason
from diagnostic_msgs.msg import KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.experimental import EventsExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from act2goal_ros import scheduling, shared_memory
from act2goal_ros.control import presence
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.declare import Declared
from act2goal_ros.nodes.parameters import NodeParameters

P = TypeVar("P", bound=NodeParameters)
E = TypeVar("E")

HEARTBEAT = 10.0  # Hz
RETRY = 2.0  # s between attempts of a node that starts itself
SPIN = 0.2  # s; EventsExecutor hangs in waits without end
INSISTED = 1.0  # s after the first signal from which another ends the process at once; Ctrl-C under ros2 launch gives two
EXIT_FAILED, EXIT_BUSY = 1, 3


def values_of(status: NodeStatus) -> dict[str, str]:
    """The values of a heartbeat by key: state, pid, machine, instance, since, scheduling, drops.* and the node's own."""
    return {pair.key: pair.value for pair in status.values}


class ManagedNode(LifecycleNode, Generic[P]):
    """A lifecycle node with a typed parameter schema and a heartbeat.

    A subclass gives name and schema and overrides setup, start, halt and teardown. Whatever it creates in setup or
    start passes through own() and is destroyed on cleanup; publishers, subscriptions and timers thus exist only while
    the node is configured.
    """

    def __init__(self, name: str, schema: type[P], autostart: bool = False) -> None:
        super().__init__(name)
        if not issubclass(schema, NodeParameters):
            raise TypeError(f"{schema.__name__} must derive from NodeParameters")
        self.p: P = schema()
        self.is_active = False
        self.fault: Exception | None = None  # set by a callback, it ends the process
        self._owned: list[Any] = []
        self._drops: Counter[str] = Counter()
        self._refused: dict[str, str] = {}
        self._scheduling = scheduling.summary()
        self._report = (NodeStatus.STARTING, "not configured", int(StopReason.NONE), dict[str, str]())
        self._report_lock = threading.Lock()
        description = ParameterDescriptor(description="come up without a supervisor", read_only=True)
        self.declare_parameter("autostart", autostart, description)
        self._parameters_of_schema = Declared(self, schema, self._is_configured, self._parameters_changed)
        self.identity = presence.identity()
        self._lifeline = presence.hold_lifeline(self.identity)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._status_publisher = self.create_publisher(NodeStatus, topics.STATUS, qos.STATUS)
        self._heartbeat = self.create_timer(1.0 / HEARTBEAT, self._beat, clock=self._steady)
        if self.get_parameter("autostart").value:
            self._starter = self.create_timer(RETRY / 10, self._start_alone, clock=self._steady)

    # what a node overrides

    def setup(self) -> None:
        """Configures: loads, creates publishers and subscriptions. Any exception fails the transition and is logged."""

    def start(self) -> None:
        """Activates."""

    def halt(self) -> None:
        """Deactivates: what moves is brought to rest."""

    def teardown(self) -> None:
        """Releases what own() does not know of; also called after a setup that failed half-way."""

    def changed(self, names: set[str]) -> None:
        """Called after parameters that may change at run time have changed; self.p is new already."""

    # what a node uses

    def own(self, entity: E) -> E:
        """Takes over a publisher, subscription, timer, service, client or anything with destroy() or close()."""
        self._owned.append(entity)
        return entity

    def report(self, level: int, message: str, stop_reason: int = StopReason.NONE, **values: Any) -> None:
        """What the heartbeat says from now on; a change of level or stop reason is published at once. Callable
        from any thread.
        """
        with self._report_lock:
            urgent = (level, stop_reason) != (self._report[0], self._report[2])
            self._report = (level, message, stop_reason, {key: str(value) for key, value in values.items()})
        if urgent:
            self._beat()

    def count(self, cause: str) -> None:
        """Counts something dropped; the heartbeat carries the sum as drops.<cause>."""
        self._drops[cause] += 1

    def soon(self, callback: Callable[[], None]) -> None:
        """Runs the callback in the executor's thread; callable from any thread."""
        if self.executor is not None:
            self.executor.create_task(callback)

    @property
    def drops(self) -> dict[str, int]:
        """Everything dropped so far by cause."""
        return dict(self._drops)

    def now(self) -> float:
        """Seconds on the node's clock."""
        return float(self.get_clock().now().nanoseconds) * 1e-9

    # lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.p = self._parameters_of_schema.build()
            self._scheduled(nice=scheduling.renice(self.p.nice), cpus=scheduling.pin(self.p.cpus))
            self.setup()
        except Exception as error:  # noqa: BLE001 - whatever setup raises must leave a node that can be configured again
            self._failed("cannot be configured", error)
            self._release()
            return TransitionCallbackReturn.FAILURE
        self.report(NodeStatus.OK, "configured")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.start()
            super().on_activate(state)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed("cannot be activated", error)
            self._quietly(self.halt)
            return TransitionCallbackReturn.FAILURE
        self.is_active = True
        if self._report[1] == "configured":
            self.report(NodeStatus.OK, "active")
        scheduling.hold_garbage(self.p.gc)
        self._scheduled(realtime_priority=scheduling.realtime(self.p.realtime_priority))
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.is_active = False
        self._quietly(self.halt)
        self._scheduled(realtime_priority=scheduling.realtime(0))
        scheduling.release_garbage()
        self.report(NodeStatus.OK, "configured")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.report(NodeStatus.STARTING, "not configured")
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.is_active:
            self.on_deactivate(state)
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.is_active = False
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Brings whatever moves to rest, releases everything and destroys the node."""
        if self.is_active:
            self._quietly(self.trigger_deactivate)
        self._release()
        if self._lifeline is not None:
            self._lifeline.let_go()
        self.destroy_node()

    # private helpers

    def _scheduled(self, **refused: str) -> None:
        """Takes what the system refused of a parameter, or '': told once in the log, and in every heartbeat."""
        for parameter, why in refused.items():
            if why and why != self._refused.get(parameter):
                self.get_logger().warning(why)
        self._refused |= refused
        self._scheduling = "; ".join((scheduling.summary(), *filter(None, self._refused.values())))

    def _is_configured(self) -> bool:
        return self._state_machine.current_state[1] in (
            "configuring",
            "inactive",
            "activating",
            "active",
            "deactivating",
        )

    def _parameters_changed(self, names: set[str]) -> None:
        self.p = self._parameters_of_schema.build()
        self.changed(names)

    def _beat(self) -> None:
        with self._report_lock:
            level, message, stop_reason, values = self._report
        status = NodeStatus(
            node=self.get_name(), level=level, message=message, stop_reason=StopReason(value=stop_reason)
        )
        status.header.stamp = self.get_clock().now().to_msg()
        drops = {f"drops.{cause}": str(number) for cause, number in self._drops.items()}
        pairs = {"state": self._state_machine.current_state[1], **self.identity, "scheduling": self._scheduling, **values, **drops}
        status.values = [KeyValue(key=key, value=value) for key, value in pairs.items()]
        if self.context.ok():
            self._status_publisher.publish(status)

    def _start_alone(self) -> None:
        state = self._state_machine.current_state[1]
        if state == "unconfigured":
            self.trigger_configure()
        elif state == "inactive":
            self.trigger_activate()
        if self.is_active:
            self._starter.cancel()
        elif self._starter.timer_period_ns != int(RETRY * 1e9):
            self._starter.timer_period_ns = int(RETRY * 1e9)

    def _failed(self, what: str, error: Exception) -> None:
        text = (
            str(error) if isinstance(error, ValueError | OSError) and str(error) else f"{type(error).__name__}: {error}"
        )
        if self._report[1] != (message := f"{what}: {text}"):
            self.get_logger().error(message)
            self.get_logger().debug(traceback.format_exc())
        self.report(NodeStatus.ERROR, message)

    def _quietly(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - releasing goes on whatever one part of it raises
            self.get_logger().error(f"{getattr(action, '__name__', action)}: {type(error).__name__}: {error}")

    def _release(self) -> None:
        self.is_active = False
        self._quietly(self.teardown)
        while self._owned:
            self._quietly(functools.partial(self._destroy, self._owned.pop()))

    def _destroy(self, entity: Any) -> None:
        for kind in ("timer", "subscription", "publisher", "service", "client"):
            if getattr(self, f"destroy_{kind}")(entity):
                return
        for name in ("destroy", "close"):
            if hasattr(entity, name):
                getattr(entity, name)()
                return
        raise TypeError(f"{type(entity).__name__} can neither be destroyed nor closed")


def run(node_class: Callable[[], ManagedNode[Any]]) -> None:
    """Runs one node until SIGINT or SIGTERM, brings it to rest and ends the process.

    Exit codes: 0 after a signal, EXIT_FAILED when a callback raised, EXIT_BUSY when a node of that name runs already.
    """
    stop = threading.Event()
    asked = -math.inf

    def end(number: int, _frame: object) -> None:
        nonlocal asked
        now = time.monotonic()
        if stop.is_set() and now - asked > INSISTED:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif not stop.is_set():
            asked = now
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    shared_memory.remove_orphans()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node: ManagedNode[Any] | None = None
    code = EXIT_FAILED
    try:
        node = node_class()
        name = presence.take_name(node.get_fully_qualified_name(), os.environ.get("ROS_DOMAIN_ID", "0"))
        executor = EventsExecutor()
        executor.add_node(node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=SPIN)
            if node.fault is not None:
                raise node.fault
        code = 0
        executor.remove_node(node)
        name.close()
    except presence.NameTaken as error:
        print(error, file=sys.stderr)
        code = EXIT_BUSY
    except ExternalShutdownException:
        code = 0
    except Exception:  # noqa: BLE001 - the arm is brought to rest first, then the process ends with the traceback
        traceback.print_exc()
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is closed: another one must not change the exit code
    sys.exit(code)
