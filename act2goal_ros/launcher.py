"""Starts the whole graph where `ros2 launch` is not installed, and keeps it running.

One circus watcher a node: started in the graph's order, started again when it ends, stopped in the reverse order on
SIGINT or SIGTERM. Output goes to one log file, each line with the node's name before it. When this process itself is
killed the kernel kills the nodes (parent-death signal, set by setpriv), so that nothing is ever left behind.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from circus import logger as circus_logger
from circus.arbiter import Arbiter
from circus.exc import ConflictError
from circus.watcher import Watcher
from tornado import gen

from act2goal_ros import graph
from act2goal_ros.control import presence

STOP_TIMEOUT = 5.0  # s a node has to end by itself
CHECK_PERIOD = 0.2  # s between looks at the processes
ATTEMPTS, ATTEMPTS_WINDOW = 5, 60.0  # a node that ends more often within this time (s) is given up
NAME_TAKEN = 3  # exit code of a node whose name another process holds: starting it again cannot help
NODE_FAILED = 1


class Log:
    """The lines of all processes, in one file and, unless the terminal is used otherwise, on standard output."""

    def __init__(self, path: Path, echo: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.recent: dict[str, deque[str]] = {}
        self._outputs: list[TextIO] = [path.open("w", buffering=1, encoding="utf-8")]
        if echo:
            self._outputs.append(sys.stdout)

    def line(self, name: str, text: str) -> None:
        """Write one line of the process called name."""
        self.recent.setdefault(name, deque(maxlen=10)).append(text)
        for output in self._outputs:
            output.write(f"[{name}] {text}\n")
            output.flush()


class Lines:
    """Collects what circus reads from a process and passes whole lines on."""

    def __init__(self, log: Log, name: str) -> None:
        self._log, self._name, self._rest = log, name, b""

    def __call__(self, data: Mapping[str, bytes]) -> None:
        """Take the next piece of output."""
        *lines, self._rest = (self._rest + data["data"]).split(b"\n")
        for line in lines:
            self._log.line(self._name, line.decode("utf-8", "replace").rstrip())


class Process:
    """One watched process and how often it had to be started again."""

    def __init__(self, launcher: Launcher, name: str, command: Sequence[str], *, required: bool,
                 respawn: bool = True, terminal: bool = False) -> None:
        self.name, self.required = name, required
        self.given_up = ""
        self._launcher = launcher
        self._starts: deque[float] = deque()
        self._last_exit: int | None = None
        setpriv, *arguments = ["setpriv", "--pdeathsig", "KILL", *command]
        streams = {} if terminal else {"stdout_stream": self._lines(), "stderr_stream": self._lines()}
        self.watcher = Watcher(
            name,
            shutil.which(setpriv) or setpriv,
            args=arguments,
            env=launcher.environment,
            graceful_timeout=STOP_TIMEOUT,
            stop_signal=signal.SIGTERM,
            respawn=respawn,
            hooks={"before_spawn": (self._before_spawn, False), "after_reap": (self._after_reap, False)},
            **streams,
        )

    def _lines(self) -> dict[str, Lines]:
        return {"stream": Lines(self._launcher.log, self.name)}

    def _before_spawn(self, **_: object) -> bool:
        """Whether to start the process (again); False makes circus give it up."""
        if self._launcher.stopping:
            return False
        now = time.monotonic()
        while self._starts and now - self._starts[0] > ATTEMPTS_WINDOW:
            self._starts.popleft()
        if self._last_exit == NAME_TAKEN:
            self.given_up = "its name is taken"
        elif len(self._starts) >= ATTEMPTS:
            self.given_up = f"it ended {len(self._starts)} times within {ATTEMPTS_WINDOW:g} s"
        if self.given_up:
            self._launcher.gave_up(self)
            return False
        self._starts.append(now)
        return True

    def _after_reap(self, exit_code: int | None, **_: object) -> bool:
        if not self._launcher.stopping:
            self._last_exit = exit_code
            self._launcher.log.line("launch", f"{self.name} {describe_exit(exit_code)}; starting it again")
        return True


class Launcher:
    """Runs the nodes of a graph until a signal comes or a required node cannot be kept running."""

    def __init__(self, settings: graph.Settings, log: Log) -> None:
        """Check everything that can be checked before a process starts.

        Raises graph.GraphError for parameter files that do not fit, presence.NameTaken when a launch runs in this
        namespace and domain already.
        """
        self._lock = graph.take_launch(settings)
        self.log = log
        self.stopping = False
        self.exit_code = 0
        self._folder = tempfile.TemporaryDirectory(prefix="act2goal_")
        self.environment = os.environ | graph.environment(settings) | {presence.LAUNCH: self._folder.name}
        self._processes = [
            Process(
                self,
                node.executable,
                command(node, settings, Path(self._folder.name)),
                required=node.required,
                respawn=node.respawn,
            )
            for node in graph.nodes(settings)
        ]

    def add(self, name: str, command: Sequence[str]) -> None:
        """Add a process that owns the terminal; it is started last and stopped last, and its end changes nothing."""
        self._processes.insert(0, Process(self, name, command, required=False, terminal=True))

    def run(self) -> int:
        """Start everything, wait for the end, stop everything; return the exit code."""
        circus_logger.addHandler(logging.NullHandler())
        circus_logger.propagate = False
        logging.getLogger("tornado.application").addFilter(_no_conflict)
        socket = f"ipc://{self._folder.name}"
        watchers = [process.watcher for process in self._processes]
        arbiter = Arbiter(watchers, f"{socket}/control", f"{socket}/events", check_delay=CHECK_PERIOD)
        for priority, process in enumerate(reversed(self._processes)):
            process.watcher.priority = priority  # circus starts the highest first
        self._loop = arbiter.loop
        self._arbiter = arbiter
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        self.log.line("launch", f"starting {', '.join(process.name for process in self._processes)}")
        try:
            arbiter.start()
        finally:
            self._folder.cleanup()
            self._lock.close()
        return self.exit_code

    def gave_up(self, process: Process) -> None:
        """Note that a process will not be started again; a required one ends the launch."""
        self.log.line("launch", f"{process.name} is not started again: {process.given_up}")
        if process.required:
            self.exit_code = NODE_FAILED
            self._stop_soon()

    def _on_signal(self, number: int, _frame: object) -> None:
        self.log.line("launch", f"{signal.Signals(number).name}: stopping")
        self._loop.add_callback_from_signal(self._stop)

    def _stop_soon(self) -> None:
        self._loop.add_callback(self._stop)

    @gen.coroutine
    def _stop(self):  # type: ignore[no-untyped-def]  # a tornado coroutine
        if self.stopping:
            return
        self.stopping = True
        self._arbiter.ctrl.caller.stop()  # circus's own look at the processes refuses to run beside a stop
        for process in reversed(self._processes):
            yield self._patiently(process.watcher.stop)
        yield self._patiently(self._arbiter.stop)

    @gen.coroutine
    def _patiently(self, action):  # type: ignore[no-untyped-def]
        """Runs a circus command as soon as circus is done with others: it refuses two at once, also while it still starts."""
        while True:
            try:
                yield action()
                return
            except ConflictError:
                yield gen.sleep(CHECK_PERIOD / 4)


def _no_conflict(record: logging.LogRecord) -> bool:
    """Whether a record is worth logging: circus's periodic look refuses to run beside a start, and comes again."""
    return not (record.exc_info and isinstance(record.exc_info[1], ConflictError))


def command(node: graph.NodeSpec, settings: graph.Settings, folder: Path) -> list[str]:
    """Return the command that runs a node with its merged parameters, which are written into folder."""
    remappings = [*node.remappings, *([("__ns", f"/{settings.namespace}")] if settings.namespace else [])]
    arguments = ["--ros-args", "--params-file", str(graph.write_parameters(node, settings, folder))]
    for source, target in remappings:
        arguments += ["-r", f"{source}:={target}"]
    return [executable(node.executable), *arguments]


def executable(name: str) -> str:
    """Return the path of a node's executable: beside the interpreter, or in a colcon installation.

    Raises graph.GraphError, naming the places, where it is in none.
    """
    prefixes = [prefix for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    places = [Path(sys.prefix) / "bin", *(Path(prefix) / "lib/act2goal_ros" for prefix in prefixes)]
    for place in places:
        if os.access(place / name, os.X_OK):
            return str(place / name)
    raise graph.GraphError(f"no executable {name} in {', '.join(map(str, places))}")


def describe_exit(code: int | None) -> str:
    """Return in words how a process ended, from its exit code (negative: the signal that ended it)."""
    if code is None:
        return "ended"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def log_path() -> Path:
    """Return where this launch logs: the folder ROS logs to, a file named after the time."""
    home = Path(os.environ.get("ROS_HOME", Path.home() / ".ros"))
    folder = Path(os.environ.get("ROS_LOG_DIR", home / "log"))
    return folder.expanduser() / f"act2goal-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
