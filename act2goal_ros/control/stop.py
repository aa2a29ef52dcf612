"""Why the arm is braked or held."""

from __future__ import annotations

from enum import IntEnum


class StopReason(IntEnum):
    """The values of act2goal_msgs/StopReason."""

    NONE = 0
    STALE_IMAGE = 1
    STALE_JOINT_STATES = 2
    STALE_PLAN = 3
    NO_SELECTION = 4
    BAD_CHUNK = 5
    DELAY_OVER_BUDGET = 6
    CONTROLLER_TRACKING_ERROR = 7
    E_STOP = 8
    NO_GOAL = 9
    ADAPTER_FAULT = 10
    NODE_LOST = 11
    BAD_IMAGE = 12
    BAD_JOINT_STATES = 13
    CLOCK_JUMP = 14
    CONTROLLER_LOST = 15
    LIMIT_VIOLATION = 16
    GOAL_REACHED = 17
    CANCELED = 18
    MODEL_FAULT = 19
    INACTIVE = 20

    @classmethod
    def of_stop(cls, value: int) -> StopReason:
        """Of a stop that is active: INACTIVE where no reason is given, or one that is not known. Never NONE, which would lift it."""
        return cls(value) if value in set(cls) - {cls.NONE} else cls.INACTIVE
