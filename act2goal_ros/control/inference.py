"""Runs the policy's networks in a thread of its own, so that commands never wait for them. No ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.executive import Request
from act2goal_ros.control.watchdog import Latest

Array = NDArray[np.float64]
T = TypeVar("T")
PATIENCE = 2.0  # s that what is being computed may take at the end


class Policy(Protocol):
    """The part of a served policy that is used here; see act2goal_ros.serving."""

    backend: str

    def set_plan(self, features: NDArray[np.float32]) -> Any: ...

    def observe(self, image: NDArray[np.uint8]) -> Any: ...

    def act(self, plan: Any, frame: Any, proprio: Any, mask: Any, frame_times: Any, prefix: Any = None) -> Any: ...


@dataclass(frozen=True)
class Proprio:
    """Joints (J,) rad, velocities (J,) rad/s, gripper 0 open .. 1 closed."""

    joints: Array
    velocities: Array
    gripper: float


@dataclass(frozen=True)
class Job:
    """A camera frame (H, W, 3) uint8 to encode and, where there is a request, to act on; `token` is handed back.

    stamp and arrival (at this process): s on the node's clock.
    """

    stamp: float
    image: NDArray[np.uint8]
    request: Request | None
    token: Any = None
    arrival: float = 0.0


@dataclass(frozen=True)
class Result:
    """What came of a job: the policy's output first, where there was a request, then the frame's latent (C, h, w)."""

    job: Job
    latent: NDArray[np.float32] | None
    output: Any
    seconds: float


class InferenceWorker:
    """Takes the newest job, computes, calls `on_latent` and `on_result`; `on_fault` gets the text of an exception.

    All three are called in the worker's thread, none of them after `close`. A plan's keys are computed when its features arrive, once.
    """

    KEPT = 3

    def __init__(
        self,
        policy: Policy,
        on_latent: Callable[[Result], None],
        on_result: Callable[[Result], None],
        on_fault: Callable[[str], None],
    ) -> None:
        self._policy = policy
        self._on_latent, self._on_result, self._on_fault = (on_latent, on_result, on_fault)
        self._jobs: Latest[Job | tuple[str, NDArray[np.float32]]] = Latest()
        self._keys: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._loop, name="inference", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> bool:
        """Offers a job; False when it replaced one that was not begun."""
        return self._jobs.put(job)

    def prepare(self, plan_id: str, features: NDArray[np.float32]) -> None:
        """Computes a plan's keys ahead of the first job that needs them, when there is nothing else to do."""
        self._jobs.offer((plan_id, features))

    def close(self) -> None:
        """Ends the thread after what it is doing; a second time does nothing.

        Raises TimeoutError when that takes longer than PATIENCE, as on a GPU that hangs: the thread is left behind and not heard of again.
        """
        if self._jobs.closed:
            return
        self._jobs.close()
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f"an inference has not ended within {PATIENCE:g} s: its thread is left behind, with what it holds")

    def _loop(self) -> None:
        while (work := self._jobs.take()) is not None:
            try:
                if isinstance(work, Job):
                    self._run(work)
                else:
                    self._keys_of(*work)
            except Exception as error:  # noqa: BLE001 - whatever a backend raises stops the arm, not the thread
                self._tell(self._on_fault, f"{type(error).__name__}: {error}")

    def _run(self, job: Job) -> None:
        began = time.monotonic()
        frame, request = self._policy.observe(job.image), job.request
        if request is not None:
            reading, plan = request.reading, request.plan
            proprio = Proprio(reading.q, reading.qd, reading.gripper)
            keys = self._keys_of(plan.plan_id, plan.features)
            output = self._policy.act(keys, frame, proprio, plan.mask, plan.times - job.stamp, request.prefix)
            self._tell(self._on_result, Result(job, None, output, time.monotonic() - began))
        self._tell(self._on_latent, Result(job, frame.latent, None, time.monotonic() - began))

    def _tell(self, listener: Callable[[T], None], news: T) -> None:
        if not self._jobs.closed:
            listener(news)

    def _keys_of(self, plan_id: str, features: NDArray[np.float32]) -> Any:
        if plan_id not in self._keys:
            self._keys[plan_id] = self._policy.set_plan(features)
            while len(self._keys) > self.KEPT:
                del self._keys[next(iter(self._keys))]
        return self._keys[plan_id]
