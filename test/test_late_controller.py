"""A controller that is a little behind: its machine's clock is, or its update is late. No command may make it leap."""

from __future__ import annotations

import numpy as np
import pytest
from test_closed_loop import PERIOD, Loop, Reason, State

LATEST = 0.012  # s, of which messages take 2 to 6 ms


def accelerations(loop: Loop) -> np.ndarray:
    """rad/s² of the set-points of the first joint while it moves, by the controller's own time."""
    _, speeds = loop.since(0.0)
    return np.abs(np.diff(speeds)) / PERIOD


@pytest.mark.parametrize("action", [False, True])
@pytest.mark.parametrize("behind", [0.0, 0.008, LATEST])
def test_a_command_from_the_controller_s_future_makes_no_leap(behind: float, action: bool) -> None:
    loop = Loop("desired_state", action)
    follow = loop.controller.update
    loop.controller.update = lambda now, q, v: follow(now - behind, q, v)  # type: ignore[method-assign]
    loop.run(2.0)
    assert loop.told[-1][:2] == (State.RUNNING, Reason.NONE), loop.told[-1]
    assert accelerations(loop).max() < 10.0, "rad/s²"
