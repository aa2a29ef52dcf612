"""Whether anything may move, and which lifecycle transitions the graph needs: what the supervisor knows and decides.

No rclpy. Times are seconds on a monotonic clock unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from act2goal_ros.control.stop import StopReason

HEALTHY, WARNING, FAULTY, STARTING = range(4)  # levels of a heartbeat
WATCHING, CONFIGURE, ACTIVATE = "", "configure", "activate"


@dataclass(frozen=True)
class Report:
    """A heartbeat: who, in which lifecycle state ('unconfigured', 'inactive', 'active'), and what it says."""

    node: str
    instance: str
    pid: int
    machine: str
    since: float  # wall clock, s
    state: str
    level: int = HEALTHY
    stop_reason: int = StopReason.NONE
    message: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether everything must stand still, and why."""

    active: bool
    reason: StopReason = StopReason.NONE
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class OversightLimits:
    """heartbeat_timeout, controller_timeout, clock_jump, recovery_time, retry_period, transition_timeout: s;
    tracking_error: rad.
    """

    heartbeat_timeout: float = 0.5
    controller_timeout: float = 0.5
    tracking_error: float = 0.2
    clock_jump: float = 0.05
    recovery_time: float = 0.5
    retry_period: float = 2.0
    transition_timeout: float = 120.0


@dataclass
class _Node:
    """What is known of one node."""

    report: Report | None = None
    heard: float = 0.0
    lost: str = ""
    pending: str = WATCHING  # the transition asked for
    pending_until: float = 0.0
    retry_at: float = 0.0
    by_hand: bool = False  # somebody else took it out of 'active': it is left alone
    others: dict[str, tuple[Report, float]] = field(default_factory=dict)  # instances of the same name
    gone: set[str] = field(default_factory=set)  # instances whose process ended

    @property
    def state(self) -> str:
        return "not seen" if self.report is None else "lost" if self.lost else self.report.state


class Oversight:
    """Collects heartbeats, deaths, e-stop, controller and clock; says what to do.

    nodes: the managed nodes in the order in which they are activated; only these count. brakes_itself: nodes whose own
    stop reasons are their own business, as they have braked already and know when to go on.
    """

    def __init__(
        self, nodes: Sequence[str], limits: OversightLimits | None = None, brakes_itself: Sequence[str] = ("policy",)
    ) -> None:
        self.limits = limits or OversightLimits()
        self.nodes = {name: _Node() for name in nodes}
        self._brakes_itself = frozenset(brakes_itself)
        self._e_stop = False
        self._controller_heard: float | None = None
        self._tracking = ""
        self._jump, self._jump_until = "", -1.0
        self._last_tick: float | None = None
        self._clock_offset: float | None = None
        self._cause: Verdict | None = None
        self._clear_since: float | None = None

    # what comes in

    def heard(self, report: Report, now: float) -> bool:
        """Takes a heartbeat; True when it comes from a process not known before."""
        node = self.nodes.get(report.node)
        if node is None or report.instance in node.gone:
            return False
        known = node.report
        if known is not None and known.instance != report.instance and not node.lost:
            node.others[report.instance] = (report, now)
            if now - node.heard < self.limits.heartbeat_timeout:
                return False
        new = known is None or known.instance != report.instance
        if new:
            node.by_hand, node.pending, node.retry_at = False, WATCHING, now
            node.others.pop(report.instance, None)
        elif known is not None and known.state == "active" and report.state != "active" and not node.pending:
            node.by_hand = report.level == HEALTHY
        if report.state == "active":
            node.by_hand = False
        node.report, node.heard, node.lost = report, now, ""
        return new

    def ended(self, instance: str) -> str:
        """The process of that instance is gone; returns the node's name, or '' where it is no longer of interest."""
        for name, node in self.nodes.items():
            node.others.pop(instance, None)
            if node.report is not None and node.report.instance == instance:
                node.gone.add(instance)
                node.lost = f"{name} ended (process {node.report.pid})"
                node.pending = WATCHING
                return name
        return ""

    def e_stop(self, pressed: bool) -> None:
        """Takes the emergency stop's state."""
        self._e_stop = pressed

    def controller(self, errors: Mapping[str, float], now: float) -> None:
        """Takes the controller's tracking errors, rad by joint name."""
        self._controller_heard = now
        joint, error = max(errors.items(), key=lambda item: abs(item[1]) if math.isfinite(item[1]) else math.inf, default=("", 0.0))
        if not math.isfinite(error):
            self._tracking = f"the tracking error of {joint} is {error}, not a finite number of radians"
        elif abs(error) > self.limits.tracking_error:
            bound = f"{self.limits.tracking_error:g} rad"
            self._tracking = self._tracking or f"{joint} is {abs(error):.3f} rad off its reference, allowed {bound}"
        elif abs(error) < 0.5 * self.limits.tracking_error:
            self._tracking = ""

    def tick(self, now: float, clock: float, period: float, stepped: bool = False) -> None:
        """Called once a period. clock: the node clock, s; stepped: it is simulated time, which may stand or leap ahead.

        Time in which this process was held up does not count as silence of the others.
        """
        late = 0.0 if self._last_tick is None else now - self._last_tick - period
        if late > 0.5 * period:
            for node in self.nodes.values():
                node.heard += late
            self._controller_heard = None if self._controller_heard is None else self._controller_heard + late
        elapsed = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        self._watch_clock(now, clock, elapsed, stepped)
        for name, node in self.nodes.items():
            self._watch_node(name, node, now)

    def _watch_clock(self, now: float, clock: float, elapsed: float, stepped: bool) -> None:
        before, self._clock_offset = self._clock_offset, clock - now
        if before is None:
            return
        jump = self._clock_offset - before
        back = jump + elapsed if stepped else jump
        if back < -self.limits.clock_jump or (not stepped and jump > self.limits.clock_jump):
            way = "back" if back < 0 else "ahead"
            self._jump = f"the clock jumped {way} by {abs(back):.3f} s, allowed {self.limits.clock_jump:g} s"
            self._jump_until = now + self.limits.recovery_time

    def _watch_node(self, name: str, node: _Node, now: float) -> None:
        for instance, (_, heard) in list(node.others.items()):
            if now - heard > self.limits.heartbeat_timeout:
                del node.others[instance]
        if node.report is None or node.lost:
            return
        if node.pending and now > node.pending_until:
            node.pending, node.retry_at = WATCHING, now
        silent = now - node.heard
        if not node.pending and silent > self.limits.heartbeat_timeout:
            node.lost = f"{name} hangs or is cut off: no heartbeat for {self.limits.heartbeat_timeout:g} s"

    # what follows

    def transitions(self, now: float) -> list[tuple[str, str]]:
        """(node, CONFIGURE | ACTIVATE) to ask for now; each is pending until transition_done or its time-out.

        All nodes are configured at once, and activated in order.
        """
        wanted = []
        before_active = True
        for name, node in self.nodes.items():
            step = {"unconfigured": CONFIGURE, "inactive": ACTIVATE if before_active else WATCHING}.get(node.state, "")
            if step and not node.pending and not node.by_hand and now >= node.retry_at:
                node.pending, node.pending_until = step, now + self.limits.transition_timeout
                wanted.append((name, step))
            before_active = before_active and node.state == "active"
        return wanted

    def transition_done(self, name: str, success: bool, now: float) -> None:
        """The node answered; it is heard afresh from now on, and asked again later where it failed."""
        node = self.nodes[name]
        node.heard = now
        node.retry_at = now if success else now + self.limits.retry_period
        if node.report is not None and success:
            state = "active" if node.pending == ACTIVATE else "inactive"
            node.report = Report(**{**vars(node.report), "state": state})
        node.pending = WATCHING

    def verdict(self, now: float) -> Verdict:
        """Whether everything must stand still. A stop stays until its cause is gone for recovery_time.

        While a cause lasts its first detail is kept, so that the verdict changes only when something new happens.
        """
        cause = self._find_cause(now)
        if cause is not None:
            self._clear_since = None
            if self._cause is None or self._cause.reason != cause.reason or cause.reason in _CHANGING:
                self._cause = cause
            return self._cause
        if self._cause is None:
            return Verdict(False)
        self._clear_since = now if self._clear_since is None else self._clear_since
        if now - self._clear_since < self.limits.recovery_time:
            return self._cause
        self._cause = None
        return Verdict(False)

    def instance_of(self, name: str) -> str:
        """The process behind a node's name, '' when it was never heard."""
        report = self.nodes[name].report
        return "" if report is None else report.instance

    def summary(self, verdict: Verdict) -> list[tuple[str, int, str, Mapping[str, str]]]:
        """(name, level, message, values) of the whole and of every node, for diagnostics."""
        stopped = f"{verdict.reason.name}: {verdict.detail}" if verdict.active else "the arm may move"
        rows: list[tuple[str, int, str, Mapping[str, str]]] = [("arm", WARNING * verdict.active, stopped, {})]
        for name, node in self.nodes.items():
            if node.report is None or node.lost:
                rows.append((name, FAULTY, node.lost or "not seen", {}))
            else:
                level = WARNING if node.report.level == STARTING else node.report.level
                rows.append((name, level, f"{node.state}: {node.report.message}", node.report.values))
        return rows

    def _find_cause(self, now: float) -> Verdict | None:
        if self._e_stop:
            return Verdict(True, StopReason.E_STOP, "emergency stop pressed")
        for name, node in self.nodes.items():
            if node.lost:
                return Verdict(True, StopReason.NODE_LOST, node.lost)
            if node.others and node.report is not None:
                others = [str(report.pid) for report, _ in node.others.values()]
                detail = f"two nodes named {name} (processes {node.report.pid} and {', '.join(others)}): two launches?"
                return Verdict(True, StopReason.NODE_LOST, detail)
        if self._controller_heard is not None and now - self._controller_heard > self.limits.controller_timeout:
            limit = f"{self.limits.controller_timeout:g} s"
            return Verdict(True, StopReason.CONTROLLER_LOST, f"the controller published no state for {limit}")
        if self._tracking:
            return Verdict(True, StopReason.CONTROLLER_TRACKING_ERROR, self._tracking)
        if now < self._jump_until:
            return Verdict(True, StopReason.CLOCK_JUMP, self._jump)
        return self._node_cause()

    def _node_cause(self) -> Verdict | None:
        for name, node in self.nodes.items():
            report = node.report
            if report is None or name in self._brakes_itself:
                continue
            if report.level == FAULTY and report.stop_reason != StopReason.NONE:
                return Verdict(True, StopReason(report.stop_reason), f"{name}: {report.message}")
        for name, node in self.nodes.items():
            if node.state != "active":
                said = f": {node.report.message}" if node.report is not None and node.report.level == FAULTY else ""
                return Verdict(True, StopReason.INACTIVE, f"{name} is {node.state}{said}")
        if self._controller_heard is None:
            return Verdict(True, StopReason.INACTIVE, "the controller has published no state yet")
        return None


_CHANGING = (StopReason.INACTIVE, StopReason.NODE_LOST)  # their detail names one node after the other
