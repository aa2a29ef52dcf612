"""Whether a controller does what it is told, by the reference it reports. No ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.inputs import NO_CAUSE, Cause, ControllerReport
from act2goal_ros.control.stop import StopReason

Array = NDArray[np.float64]
SYNC = 0.002  # rad; a reference that is nearer to the command is taken for the same
UNMOVED = 1e-4  # rad; a reference that has moved less has taken none of the commands in between


class Following:
    """Compares the controller's reference with the command, both (J,) rad, at the time of each report.

    It may be `error` rad off, and stand still off the command for `timeout` s.
    """

    def __init__(self, names: tuple[str, ...], error: float, timeout: float) -> None:
        self._names, self._error, self._timeout = names, error, timeout
        self._stands: tuple[float, Array] | None = None  # since when, s, and where

    def forget(self) -> None:
        """Nothing is commanded."""
        self._stands = None

    def cause(self, report: ControllerReport, commanded: Array, monotonic: float) -> Cause:
        """Why the arm must not go on, if it must not; to be asked in every tick in which the arm follows."""
        off = np.abs(report.q - commanded)
        j = int(off.argmax())
        where = f"reference of {self._names[j]} is {off[j]:.3f} rad off the command"
        if off[j] > self._error:
            return StopReason.CONTROLLER_TRACKING_ERROR, f"the controller's {where}, allowed {self._error:g} rad"
        if off[j] <= SYNC or self._stands is None or np.abs(report.q - self._stands[1]).max() > UNMOVED:
            self._stands = (monotonic, report.q)
        stood = monotonic - self._stands[0]
        if stood <= self._timeout:
            return NO_CAUSE
        detail = f"its {where} and has not moved for {stood:.3f} s, allowed {self._timeout:g} s"
        return StopReason.CONTROLLER_LOST, f"the controller takes no commands: {detail}"
