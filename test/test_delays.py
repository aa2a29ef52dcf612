"""The comparison under delay: that each way to join chunks does what its authors say, and that figures mean what they are called."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.limits import uniform_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import delays  # noqa: E402
from baselines import Guided, Newest, Queued  # noqa: E402
from motion import figures  # noqa: E402

from act2goal_ros.learning.evaluate import Trace  # noqa: E402

LIMITS = uniform_limits(tuple("abcdef"))
STEP, ROWS, TICK = 0.05, 16, 0.02


def chunk(stamp: float, value: float = 0.0, gripper: float = 0.0) -> ActionChunk:
    """All joints of all rows at one value."""
    return ActionChunk(stamp, STEP, np.full((ROWS, 6), value), np.full(ROWS, gripper))


def truth(times: np.ndarray) -> np.ndarray:
    return 0.3 * np.sin(1.5 * np.asarray(times))


def follow(name: str, delay: float, seconds: float = 3.0) -> np.ndarray:
    """Set-points (N, 2) of time and value when all chunks agree on one motion and each arrives `delay` s late, one at a time."""
    execution, waiting, seen = delays.METHODS[name].make(LIMITS, np.full(6, truth(0.0)), STEP), [], []
    for k in range(round(seconds / TICK)):
        now = k * TICK
        for _ in range(2):
            if waiting and now >= waiting[0].stamp + delay - 1e-9:
                execution.adopt(waiting.pop(), now)
            if k % 2 == 0 and not waiting and execution.wants_chunk(now):
                rows = truth(now + STEP * np.arange(1, ROWS + 1))
                waiting.append(ActionChunk(now, STEP, np.repeat(rows[:, None], 6, axis=1), np.zeros(ROWS)))
        times = now + 0.002 * np.arange(1, 11)
        seen.append(np.column_stack([times, execution.command(times)[0][:, 2]]))
    return np.concatenate(seen)


@pytest.mark.parametrize("name", [name for name in delays.METHODS if name != "naive"])
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.32])
def test_chunks_that_agree_are_followed_without_lag_whatever_the_delay(name: str, delay: float) -> None:
    found = follow(name, delay)
    settled = found[found[:, 0] > 1.5]
    assert np.abs(settled[:, 1] - truth(settled[:, 0])).max() < 2e-3


def test_naive_chunks_lag_by_the_delay() -> None:
    found = follow("naive", 0.2)
    settled = found[found[:, 0] > 1.5]
    assert np.abs(settled[:, 1] - truth(settled[:, 0] - 0.2)).max() < 2e-3


def test_the_newest_chunk_is_entered_where_it_is_now() -> None:
    execution = Newest(LIMITS, np.zeros(6), STEP)
    times = np.array([1.3, 1.302])
    assert not execution.command(times)[0].any()
    execution.adopt(ActionChunk(1.0, STEP, np.repeat(np.arange(ROWS)[:, None], 6, axis=1) * 1.0, np.linspace(0, 1, ROWS)), 1.3)
    q, gripper = execution.command(times)
    np.testing.assert_allclose(q[0], 5.0)
    assert gripper == pytest.approx(5.04 / 15)


def test_the_queue_averages_what_overlaps_drops_what_has_passed_and_asks_again_at_half() -> None:
    execution = Queued(LIMITS, np.zeros(6), STEP)
    assert execution.wants_chunk(0.0)
    execution.adopt(chunk(0.0, 1.0, 1.0), 0.2)
    assert not execution.wants_chunk(0.2) and not execution.wants_chunk(0.36) and execution.wants_chunk(0.4)
    execution.adopt(chunk(0.4, 2.0), 0.6)
    at_steps = execution.command(STEP * np.arange(12, 26))[0][:, 0]
    np.testing.assert_allclose(at_steps[1:5], 0.3 * 1.0 + 0.7 * 2.0)
    np.testing.assert_allclose(at_steps[5:], 2.0)
    assert at_steps[0] == 1.0  # had been taken
    assert not execution.wants_chunk(0.6) and execution.wants_chunk(0.8)


def test_guidance_is_towards_what_is_left_of_the_last_chunk() -> None:
    execution = Guided(LIMITS, np.zeros(6), STEP)
    assert execution.prefix(0.0, 0.2) is None
    rows = np.arange(1, ROWS + 1)[:, None] * np.ones(6)
    execution.adopt(ActionChunk(0.0, STEP, rows, np.zeros(ROWS)), 0.2)
    left = execution.prefix(0.225, 0.2)
    assert left is not None
    np.testing.assert_allclose(left[:, 0], 5.5 + np.arange(11))
    assert left.shape == (11, 7)


def test_figures_of_a_motion_that_is_known() -> None:
    """A cubic of 12 rad/s³, a jump of 0.1 rad at the third chunk, an arm that stays 0.02 rad behind."""
    t = 0.002 * np.arange(1, 1001)
    sent = np.repeat((2.0 * t**3)[:, None], 6, axis=1)
    smooth = figures(Trace(sent=list(sent), measured=list(sent - 0.02), borders=[0, 100, 500]))
    assert smooth["jerk_max"] == pytest.approx(12.0, rel=1e-3) and smooth["jerk_mean"] == pytest.approx(12.0, rel=1e-3)
    assert smooth["tracking_rms"] == pytest.approx(0.02) and smooth["tracking_max"] == pytest.approx(0.02)
    assert smooth["border_step"] < 1e-4
    sent[500:, 3] += 0.1
    jumped = figures(Trace(sent=list(sent), measured=list(sent), borders=[0, 100, 500]))
    assert jumped["border_step"] == pytest.approx(0.1, rel=1e-2)
    assert jumped["jerk_max"] > 0.9 * 0.2 / 0.02**3


def row(method: str, ms: int, seed: int, success: bool) -> dict[str, object]:
    shape = dict.fromkeys(("jerk_max", "jerk_mean", "border_step", "tracking_rms", "tracking_max"), float(seed))
    return {"method": method, "ms": ms, "task": "cube-single-1", "seed": seed, "success": success, "at_rest": success} | shape


def test_the_summary_pairs_episodes() -> None:
    rows = [row("ours", ms, seed, ms < 200 or seed > 0) for ms in (0, 200) for seed in range(4)]
    rows += [row("naive", 200, seed, seed == 3) for seed in range(1, 4)]
    found = delays.summarise(rows)
    cell = found["delay_sweep"]["ours"]["200"]
    assert (cell["success_rate"], cell["episodes"], cell["jerk_max"], cell["jerk_mean"]) == (0.75, 4, 3.0, 1.5)
    lost = found["success_lost_at_200ms"]
    assert (lost["difference"], lost["episodes"], lost["against_ms"]) == (0.25, 4, 0)
    assert lost["low"] <= 0.25 <= lost["high"]
    minus = found["ours_minus"]["naive"]["200"]
    assert (minus["difference"], minus["episodes"]) == (pytest.approx(2 / 3), 3)


def test_rows_are_taken_up_again_but_not_another_model_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delays, "OUTPUTS", tmp_path / "delays")
    model = str(delays.ROOT / "models" / "act2goal-tiny")
    jobs = [delays.Job("ours", 0, "cube-single-1", seed) for seed in range(3)]
    log = delays.Log(delays.Setup(model, False))
    log.add(row("ours", 0, 1, True))
    with (tmp_path / "delays" / "ours.jsonl").open("a") as file:
        print(json.dumps(row("ours", 0, 2, True) | {"model": "another", "pipelined": False}), file=file)
    again = delays.Log(delays.Setup(model, False))
    assert [job.seed for job in again.missing(jobs)] == [0, 2]
    assert len(delays.Log(delays.Setup(model, True)).missing(jobs)) == 3


def test_the_soft_mask_is_one_while_frozen_and_decays_to_nothing() -> None:
    pytest.importorskip("torch")
    from guidance import soft_mask

    weights = soft_mask(19, 12, 4).numpy()
    assert (weights[:4] == 1).all() and (weights[12:] == 0).all()
    assert (np.diff(weights[3:13]) < 0).all()
    c = 8 / 9
    assert weights[4] == pytest.approx(c * np.expm1(c) / (np.e - 1))
    assert (soft_mask(19, 0, 4) == 0).all() and (soft_mask(19, 3, 4).numpy()[:4] == [1, 1, 1, 0]).all()


def test_guidance_pulls_towards_what_is_given_and_without_it_the_chunk_is_the_served_one() -> None:
    torch = pytest.importorskip("torch")
    from guidance import GuidedTick

    from act2goal_ros.learning.system import System
    from act2goal_ros.model.config import ModelConfig
    from act2goal_ros.serving.networks import networks

    torch.manual_seed(0)  # a network whose clean actions follow the noisy ones; with others the product may lead elsewhere
    sizes = {"world_width": 48, "world_heads": 4, "expert_width": 32, "blocks": 2, "live_width": 8, "autoencoder_width": 8}
    system = System(ModelConfig(**sizes, flow_steps=6)).eval()  # guidance bends a way of several steps
    for parameter in system.expert.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    tick = networks(system)["tick"]
    module, names = tick.module, tick.inputs
    inputs = {name: value.detach().numpy() for name, value in zip(names, tick.example, strict=True)}
    inputs |= {name: np.zeros_like(value) for name, value in inputs.items() if name == "given_mask" or name.startswith("blocks.")}
    with torch.no_grad():
        expected = module(*(torch.from_numpy(inputs[name]) for name in names)).numpy()
    free = GuidedTick(system.expert, 4, steps=6)(inputs)["actions"]
    np.testing.assert_allclose(free, expected, atol=1e-5)
    inputs["given_mask"][:, :10] = 1.0
    inputs["given"] = free + 0.1
    guided = [GuidedTick(system.expert, 4, most, 6)(inputs)["actions"] for most in (0.0, 0.1, 0.2)]
    error = [np.square(found - inputs["given"])[0, :4, :6].sum() for found in guided]
    assert error[0] > error[1] > error[2]
