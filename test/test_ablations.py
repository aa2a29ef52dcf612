"""What is compared is paired, taken up again, and counted as it is called; with a loop that is only pretended."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("ogbench")

from act2goal_ros import paths  # noqa: E402
from act2goal_ros.learning import ablations  # noqa: E402
from act2goal_ros.learning.evaluate import LoopSettings  # noqa: E402
from act2goal_ros.learning.jobs import FIRST_SEED, Job, resets, run_jobs  # noqa: E402
from act2goal_ros.learning.rowlog import Row, RowLog  # noqa: E402

MODEL = str(paths.model("act2goal-tiny"))


def pretend(job: Job) -> Row:
    """Easy resets always work; hard ones (odd seeds) unless the plan is corrupted or the chunk is old."""
    hard = job.seed % 2 == 1
    spoilt = job.settings.variant != "normal" or job.settings.chunk_every > 4 or job.settings.spacing == "fixed"
    success = not (hard and spoilt)
    return {"name": job.name, "model": job.digest, "task": job.task, "seed": job.seed, "evaluation": job.evaluation,
            "success": success, "at_rest": None if job.settings.until_success else False}  # fmt: skip


def test_resets_of_evaluation_seeds_are_all_different() -> None:
    drawn = resets(["a", "b"], 50, range(3))
    assert len(set(drawn)) == len(drawn) == 300
    assert drawn[:3] == [(0, "a", FIRST_SEED), (0, "b", FIRST_SEED), (0, "a", FIRST_SEED + 1)]
    assert not {seed for e, _, seed in drawn if e == 0} & {seed for e, _, seed in drawn if e == 1}
    with pytest.raises(ValueError, match="0 episodes"):
        resets(["a"], 0, [0])


def test_every_variant_runs_the_same_resets_one_after_the_other() -> None:
    variants = ablations.plan_variants(MODEL, levels=False)
    jobs = ablations.jobs_for(variants, ["cube-single"], episodes=2, seeds=2)
    assert len(jobs) == len(variants) * 5 * 2 * 2
    for start in range(0, len(jobs), len(variants)):
        group = jobs[start : start + len(variants)]
        assert len({(job.task, job.seed) for job in group}) == 1 and [job.name for job in group] == [v.name for v in variants]


def test_what_needs_levels_is_left_out_without_them() -> None:
    without = {v.name for v in ablations.plan_variants(MODEL, levels=False)}
    assert {"right", "other_episode", "shuffled", "permuted_times", "masked", "none"} <= without
    assert {v.name for v in ablations.plan_variants(MODEL, levels=True)} - without == {
        "true_future", "denoised_2", "denoised_4", "denoised_8",
    }  # fmt: skip


def test_differences_are_of_pairs(tmp_path: Path) -> None:
    variants = ablations.plan_variants(MODEL, levels=False)
    with RowLog(tmp_path / "rows.jsonl", {}) as log:
        rows = run_jobs(log, ablations.jobs_for(variants, ["cube-single"], 4, 1), 0, pretend)
    found = ablations.compare(rows, [v.name for v in variants])
    assert found["variants"]["right"]["success_rate"] == 1.0 and found["variants"]["none"]["success_rate"] == 0.5
    assert found["less_than_first"]["none"]["difference"] == 0.5 and found["less_than_first"]["none"]["episodes"] == 20
    assert "right" not in found["less_than_first"]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    jobs = ablations.jobs_for(ablations.replan_variants(MODEL), ["cube-single"], 1, 1)
    ran = []

    def interrupted(job: Job) -> Row:
        if len(ran) == 7:
            raise KeyboardInterrupt
        ran.append(job.key)
        return pretend(job)

    with pytest.raises(KeyboardInterrupt), RowLog(tmp_path / "rows.jsonl", {}) as log:
        run_jobs(log, jobs, 0, interrupted)
    ran_before, ran = ran, []

    def counted(job: Job) -> Row:
        ran.append(job.key)
        return pretend(job)

    with RowLog(tmp_path / "rows.jsonl", {}) as log:
        rows = run_jobs(log, jobs, 0, counted)
    assert len(ran_before) == 7 and len(ran) == len(jobs) - 7 and not set(ran) & set(ran_before)
    assert [(row["name"], row["task"], row["seed"]) for row in rows] == [(job.name, job.task, job.seed) for job in jobs]


def test_another_model_s_rows_are_not_taken(tmp_path: Path) -> None:
    job = Job("a", MODEL, LoopSettings(), "cube-single-1", 1, digest="new")
    with RowLog(tmp_path / "rows.jsonl", {}) as log:
        log.add(pretend(job) | {"model": "old", "success": False})
        rows = run_jobs(log, [job], 0, pretend)
    assert [row["model"] for row in rows] == ["new"] and rows[0]["success"]


def test_replanning_every_frame_loses_what_it_loses(tmp_path: Path) -> None:
    variants = ablations.replan_variants(MODEL)
    assert [v.name for v in variants[:5]] == ["1", "2", "4", "8", "16"] and {v.settings.join for v in variants[:5]} == {"prefix"}
    assert {v.settings.join for v in variants[5:]} == {"none"}

    def worse_every_frame(job: Job) -> Row:
        return pretend(job) | {"success": not (job.name == "1" and job.seed % 2)}

    with RowLog(tmp_path / "rows.jsonl", {}) as log:
        rows = run_jobs(log, ablations.jobs_for(variants, ["cube-single"], 4, 1), 0, worse_every_frame)
    loss = ablations.every_frame_loss(rows)
    assert (loss["difference"], loss["of"], loss["episodes"]) == (0.5, 10, 20)
    fewer = [row for row in rows if row["name"] in ("1", "8") or row["seed"] % 2 == 0]
    loss = ablations.every_frame_loss(fewer)
    assert (loss["best"], loss["of"], loss["episodes"]) == ("8", 2, 20), "of ways with as many episodes"


def test_horizons_and_the_long_gain(tmp_path: Path) -> None:
    variants = ablations.msth_variants({}, otherwise=MODEL)
    assert [v.name for v in variants] == ["paper", "geometric", "uniform", "fixed", "goal"]
    jobs = ablations.jobs_for(variants, ["cube-single", "cube-triple", "scene"], 2, 1, by_model=True)
    assert [job.name for job in jobs[: len(jobs) // 5]] == ["paper"] * (len(jobs) // 5)
    with RowLog(tmp_path / "rows.jsonl", {}) as log:
        rows = run_jobs(log, jobs, 0, pretend)
    found = ablations.by_horizon(rows, [v.name for v in variants])
    assert set(found["fixed"]) == {"short", "long"} and found["fixed"]["long"]["episodes"] == 20
    gain = ablations.long_gain(rows)
    assert gain is not None and gain["difference"] == 0.5 and gain["episodes"] == 20
    assert ablations.long_gain([row for row in rows if row["name"] != "fixed"]) is None
    with pytest.raises(ValueError, match="linear is none of the spacings"):
        ablations.msth_variants({"linear": MODEL})


def test_the_command_writes_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from act2goal_ros.cli import ablate
    from act2goal_ros.learning import jobs

    monkeypatch.setattr(jobs, "run_job", pretend)
    output = tmp_path / "replan.json"
    result = CliRunner().invoke(ablate.command, ["replan", "--episodes", "2", "--workers", "0", "--output", str(output), "--variant", "16"])
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert set(found["variants"]) == {"1", "16"} and found["variants"]["16"]["success_rate"] == 0.5
    assert "50.0 %" in result.output and "+50.0" in result.output
    assert found["every_frame_loss"]["difference"] == 0.0
    again = ["replan", "--episodes", "2", "--workers", "0", "--output", str(tmp_path / "quick.json"), "--until-success"]
    assert CliRunner().invoke(ablate.command, again).exit_code == 0
    assert json.loads((tmp_path / "quick.json").read_text())["variants"]["1"]["at_rest_rate"] is None
    refused = CliRunner().invoke(ablate.command, ["msth", "--output", str(output)])
    assert refused.exit_code == 1 and "give --trained SPACING=MODEL" in refused.output


def test_a_corrupted_plan_is_corrupted_as_said() -> None:
    from act2goal_ros.learning.plans import GoalFrame, PermutedTimes, Shuffled, ShuffledWay, make_planner
    from act2goal_ros.serving.bundle import ModelBundle

    imagination = ModelBundle.load(MODEL).imagination()
    c = imagination.config
    live, goal = np.random.default_rng(0).normal(size=(2, *c.served_latent)).astype(np.float32)
    plain = imagination.imagine(live, goal, 5)
    for kind, stays in ((Shuffled, False), (ShuffledWay, True)):
        planner = kind(imagination)
        planner.seed = 3
        changed = planner.plan(live, goal, 5)
        assert not np.array_equal(changed.features, plain.features)
        np.testing.assert_array_equal(np.sort(changed.features.sum((0, 2, 3))), np.sort(plain.features.sum((0, 2, 3))))
        assert np.array_equal(changed.features[:, -1], plain.features[:, -1]) or not stays
        np.testing.assert_array_equal(changed.offsets, plain.offsets)
    planner = PermutedTimes(imagination)
    planner.seed = 3
    permuted = planner.plan(live, goal, 5)
    np.testing.assert_array_equal(permuted.offsets, plain.offsets)
    assert np.abs(permuted.features[:, 0] - plain.features[:, 0]).max() > 1e-3, "the world model was told other times"
    assert GoalFrame(imagination).seen(np.ones(6, bool)).tolist() == [False] * 5 + [True]
    with pytest.raises(ValueError, match="'truth' needs networks with the noise level"):
        make_planner("truth", imagination, None, 1)
    with pytest.raises(ValueError, match="variant 'wrong' is not one of normal, other_goal"):
        make_planner("wrong", imagination, None, 1)
