"""Plans and their variants, the schedule, the worker."""

import threading
import time

import numpy as np
import pytest
from fake_bundle import SPEED, FakeImagination, latent, picture
from hypothesis import given
from hypothesis import strategies as st

from act2goal_ros.control.planner import Meter, Planner, PlannerError, PlanSchedule, Worker, derangement


def planner(**options) -> Planner:
    made = Planner(FakeImagination(), seed=3, **options)
    made.set_goal("g1", picture(0.8))
    return made


def test_a_plan_leads_from_the_picture_to_the_goal_and_can_be_made_again_from_its_seed():
    plan = planner().plan(picture(0.2), 50.0)
    assert plan.goal_id == "g1" and plan.stamp == 50.0 and plan.seed == 4 and plan.dense == 3
    assert plan.time_to_goal == pytest.approx(0.6 / SPEED, abs=0.05)
    assert plan.latents.shape == (6, 2, 4, 4) and plan.features.shape[1] == len(plan.offsets) == 6
    np.testing.assert_allclose(plan.start_latent, latent(0.2), atol=2e-3)
    np.testing.assert_allclose(plan.goal_latent, latent(0.8), atol=2e-3)
    np.testing.assert_allclose(plan.latents[-1], plan.goal_latent, atol=2e-3)
    again = FakeImagination().imagine(plan.start_latent, plan.goal_latent, plan.seed)
    np.testing.assert_array_equal(again.features, plan.features)


def test_every_plan_has_an_id_and_a_seed_of_its_own():
    made = planner()
    plans = [made.plan(picture(0.2), 0.0) for _ in range(5)]
    assert len({p.plan_id for p in plans}) == len({p.seed for p in plans}) == 5


def test_another_goals_plan_leads_elsewhere_but_is_judged_by_the_goal_shown():
    plan = planner(variant="other_goal", other_goals=[picture(0.0)]).plan(picture(0.2), 0.0)
    np.testing.assert_allclose(plan.latents[-1], latent(0.0), atol=2e-3)
    np.testing.assert_allclose(plan.goal_latent, latent(0.8), atol=2e-3)


def test_shuffled_features_keep_frames_and_move_every_one():
    made = planner(variant="shuffled")
    right = planner().plan(picture(0.2), 0.0).features
    orders = set()
    for _ in range(8):
        features = made.plan(picture(0.2), 0.0).features
        order = [int(np.flatnonzero(np.isclose(right[0, :, 0, 0], v))[0]) for v in features[0, :, 0, 0]]
        assert sorted(order) == list(range(6)) and all(i != k for k, i in enumerate(order))
        orders.add(tuple(order))
    assert len(orders) > 1


def test_masked_features_are_zero_and_none_is_no_plan():
    plan = planner(variant="masked").plan(picture(0.2), 0.0)
    assert not plan.features.any() and plan.latents.any()
    assert planner(variant="none").plan(picture(0.2), 0.0) is None


@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_a_derangement_moves_everything(count, seed):
    order = derangement(count, np.random.default_rng(seed))
    assert sorted(order) == list(range(count))
    assert count < 2 or not np.any(order == np.arange(count))


def test_faults_are_named():
    with pytest.raises(PlannerError, match="'upside_down'"):
        Planner(FakeImagination(), variant="upside_down")
    with pytest.raises(PlannerError, match="there are 0"):
        Planner(FakeImagination(), variant="other_goal")
    with pytest.raises(PlannerError, match="no goal"):
        Planner(FakeImagination()).plan(picture(0.2), 0.0)
    made = planner()
    made._imagination.faults = {4: "nan"}
    with pytest.raises(PlannerError, match="not finite \\(seed 4\\)"):
        made.plan(picture(0.2), 0.0)
    assert made.plan(picture(0.2), 0.0).seed == 5


def test_the_schedule_keeps_its_rate_from_frames_at_25_hz():
    schedule, made = PlanSchedule(5.0), 0
    for k in range(250):
        if schedule.due(k * 0.04):
            schedule.made(k * 0.04)
            made += 1
    assert made == 50


def test_the_schedule_hurries_and_survives_a_clock_that_jumps_back():
    schedule = PlanSchedule(5.0)
    schedule.made(100.0)
    assert not schedule.due(100.04)
    schedule.hurry()
    assert schedule.due(100.04)
    schedule.made(100.0)
    assert schedule.due(40.0)


def test_the_meter_measures_a_rate_and_forgets():
    meter = Meter(span=1.0)
    for k in range(100):
        meter.tick(k * 0.1)
    assert meter.rate(9.9) == pytest.approx(10.0)
    assert meter.rate(20.0) == 0.0


def test_the_worker_does_the_newest_once_and_outlives_exceptions():
    runs, faults, gate = [], [], threading.Event()

    def work():
        gate.wait(2.0)
        runs.append(time.monotonic())
        if len(runs) == 1:
            raise RuntimeError("once")

    worker = Worker(work, faults.append)
    worker.ask()
    time.sleep(0.05)
    for _ in range(10):
        worker.ask()
    gate.set()
    time.sleep(0.1)
    worker.close()
    assert len(runs) == 2 and [str(f) for f in faults] == ["once"]
