"""`act2goal eval` with the shipped model, in processes of its own: rows, table, films; and what looks and corrupted plans change."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from act2goal_ros import paths
from act2goal_ros.cli.eval import command
from act2goal_ros.cli.export import command as export
from act2goal_ros.learning.evaluate import EpisodeResult, Loop, LoopSettings, Seen
from act2goal_ros.learning.films import SHEET, contact_sheet, film, wanted
from act2goal_ros.learning.plans import VARIANTS, make_planner
from act2goal_ros.learning.statistics import summary, wilson
from act2goal_ros.model.msth import SPACINGS
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.sim.look import RANGE, UNSEEN
from act2goal_ros.sim.tasks import official_tasks

MODEL = "act2goal-tiny"
TASKS = official_tasks("cube-single")


def frames_of(path: Path) -> int:
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    return count


def test_an_evaluation_in_two_processes_shows_rows_table_and_films_and_is_not_done_twice(tmp_path: Path) -> None:
    output, films = tmp_path / "single.json", tmp_path / "films"
    arguments = [MODEL, "--episodes", "1", "--workers", "2", "--until-success", "--films", str(films), "--output", str(output)]
    outcome = CliRunner().invoke(command, arguments)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(output.read_text())
    rows = found["rows"]
    assert [(row["task"], row["seed"]) for row in rows] == [(task, 1000) for task in TASKS]
    assert found["model_hash"] == ModelBundle.load(paths.model(MODEL)).hash and found["options"]["until_success"]
    successes = sum(row["success"] for row in rows)
    assert successes >= 4, "five resets of the easiest tasks"
    expected = json.loads(json.dumps(summary(rows)))
    assert {key: found["summary"][key] for key in expected} == expected
    assert found["summary"]["interval"] == pytest.approx(wilson(successes, 5)) and found["summary"]["at_rest_rate"] is None
    for task in TASKS:
        assert re.search(rf"{task} .* 1 .* (0|100)\.0 %", outcome.output), outcome.output
    assert re.search(rf"all .* 5 .* {20 * successes}\.0 %", outcome.output)
    made = sorted(path.stem for path in films.glob("*.mp4"))
    assert made == sorted(f"{row['task']}-{'success' if row['success'] else 'failure'}-{row['seed']}" for row in rows)
    slowest = max((row for row in rows if row["success"]), key=lambda row: row["success_time"])
    seen = frames_of(films / f"{slowest['task']}-success-1000.mp4")
    assert seen == pytest.approx(slowest["success_time"] * 25, abs=2), "a picture a camera frame, until success"
    assert (films / SHEET).exists()

    log = output.with_suffix(".jsonl")
    changed = log.stat().st_mtime_ns
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 0 and log.stat().st_mtime_ns == changed, "all rows were there"
    assert json.loads(output.read_text()) == found
    assert found["summary"]["reached_detector"] and "samples" in log.read_text()
    elsewhere = tmp_path / "kept" / "rows.jsonl"
    shutil.copytree(tmp_path, tmp_path / "kept", ignore=shutil.ignore_patterns("kept", "films"))
    (tmp_path / "kept" / "single.jsonl").rename(elsewhere)
    without = [MODEL, "--episodes", "1", "--until-success", "--no-detector", "--rows", str(elsewhere), "--output", str(output)]
    assert CliRunner().invoke(command, without).exit_code == 0
    assert json.loads(output.read_text())["rows"] == rows and not log.with_name("rows.jsonl").exists(), "these rows are taken up"
    other = CliRunner().invoke(command, [*arguments, "--chunk-every", "2"])
    assert other.exit_code == 1 and "chunk_every" in other.output, "rows of other settings are not mixed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "dreamt"], "variant 'dreamt' is not one of normal, "),
        (["--variant", "truth"], "variant 'truth' needs networks with the noise level as an input: `act2goal export --levels`"),
        (["--join", "glue"], "join 'glue' is not one of prefix, "),
        (["--look", "dark"], "look 'dark' is not one of fast, "),
        (["--chunk-every", "0"], "chunk_every = 0, it must be above 0"),
        (["--delay", "-0.1"], "delay = -0.1 s, it must be at least 0"),
        (["--env", "scene", "--look", "unseen:region"], "there is no unseen region for scene"),
        (["--episodes", "0"], "0 episodes a task and seed, 1 to "),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: list[str], words: str) -> None:
    outcome = CliRunner().invoke(command, [MODEL, "--episodes", "1", "--workers", "0", *arguments])
    assert outcome.exit_code == 1 and f"Error: {words}" in outcome.output, outcome.output


@pytest.fixture(scope="module")
def with_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights with networks that are told the noise level."""
    folder = tmp_path_factory.mktemp("models") / "levels"
    outcome = CliRunner().invoke(export, [str(paths.model(MODEL)), str(folder), "--levels"])
    assert outcome.exit_code == 0, outcome.output
    return folder


def ways(loop: Loop, task: str, **variants: LoopSettings) -> dict[str, np.ndarray]:
    """Set-points (N, J) of the same episode, by name of the settings."""
    found = {}
    for name, settings in variants.items():
        loop.configure(settings)
        found[name] = np.array(loop.run(task, 7).trace.sent)
    return found


@pytest.fixture(scope="module")
def loop() -> Loop:
    return Loop(ModelBundle.load(paths.model(MODEL)), LoopSettings(duration=0.4))


def test_looks_are_the_arm_s(loop: Loop) -> None:
    pictures = {}
    looks = (("fast", True, None), ("stock", False, None), ("randomised", True, RANGE), ("unseen:light", True, UNSEEN["light"]))
    for look, light, drawn in looks:
        loop.configure(LoopSettings(duration=0.04, look=look))
        assert loop.arm is loop._arms[light] and loop.arm.look is drawn
        loop.run(TASKS[0], 5)
        pictures[look] = loop.arm.render()
    first, *others = pictures.values()
    assert min(np.abs(first.astype(int) - other).mean() for other in others) > 0.5


def test_a_corrupted_plan_changes_what_the_arm_does(loop: Loop) -> None:
    ends = {}
    for variant in ("normal", "none", "other_goal", "masked"):
        loop.configure(LoopSettings(duration=1.2, variant=variant))
        result = loop.run(TASKS[1], 7)
        ends[variant] = result.trace.measured[-1] - result.trace.measured[0]
    assert np.abs(ends["none"]).max() < 0.01, "without a plan nothing is asked of the arm"
    assert np.abs(ends["normal"]).max() > 0.05
    for variant in ("none", "other_goal", "masked"):
        assert np.abs(ends[variant] - ends["normal"]).max() > 0.01, variant


def test_every_variant_of_the_plan_runs_and_is_another(with_levels: Path) -> None:
    loop = Loop(ModelBundle.load(with_levels), LoopSettings(duration=0.8))
    settings = {variant: LoopSettings(duration=0.8, variant=variant) for variant in VARIANTS}
    settings |= {f"{spacing} spacing": LoopSettings(duration=0.8, spacing=spacing) for spacing in SPACINGS}
    found = ways(loop, "scene-2", again=LoopSettings(duration=0.8), **settings)
    trained = f"{loop.bundle.config.spacing} spacing"
    for name, way in found.items():
        assert way.shape == found["normal"].shape
        assert (np.abs(way - found["normal"]).max() > 1e-4) == (name not in ("normal", "again", trained)), name


def test_what_is_withheld_of_a_plan(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = loop.arm
    goal = loop.imagination.encode(arm.reset("cube-single-2", 3))
    live = loop.imagination.encode(arm.render())
    made = {v: make_planner(v, loop.imagination, None, 1) for v in ("normal", "imagined_places", "features_alone", "places_alone")}
    found = {variant: planner.plan(live, goal, 5).features for variant, planner in made.items()}
    found_time = loop.imagination.time_to_goal(live, goal)
    assert made["imagined_places"].plan(live, goal, 5).time_to_goal == made["normal"].plan(live, goal, 5).time_to_goal
    whole, kinds = found["normal"], 3 * loop.bundle.config.keypoints
    for name in ("imagined_places", "features_alone"):
        np.testing.assert_allclose(found[name][:-1], whole[:-1], atol=1e-6)
    np.testing.assert_allclose(found["places_alone"][-1], whole[-1], atol=1e-6)
    assert not found["features_alone"][-1].any() and not found["places_alone"][:-1].any()
    assert np.abs(whole[-1].reshape(len(whole[-1]), -1)[:, :kinds]).max() > 0.1 and np.abs(whole[:-1]).max() > 0.1
    assert 1e-3 < np.abs(found["imagined_places"][-1] - whole[-1]).max(), "they were finer by what the live encoder saw"
    elsewhere = np.concatenate([goal[:-1], 0.5 * goal[-1:]])
    monkeypatch.setattr(loop.imagination, "time_to_goal", lambda *_: found_time)  # which where things are is a part of
    np.testing.assert_array_equal(made["imagined_places"].plan(live, elsewhere, 5).features, found["imagined_places"])
    assert np.abs(made["normal"].plan(live, elsewhere, 5).features - whole).max() > 1e-3


def test_replanning_less_often_and_other_joins_are_other_ways(loop: Loop) -> None:
    every = {f"every {n}": LoopSettings(duration=0.8, chunk_every=n) for n in (1, 2, 8)}
    found = ways(loop, TASKS[1], **every, free=LoopSettings(duration=0.8, join="none"))
    usual = found.pop("every 1")
    for name, way in found.items():
        assert np.abs(way - usual).max() > 1e-4, name
    loop.configure(every["every 8"])
    assert len(loop.run(TASKS[1], 7).trace.chunks) == 3, "20 frames of 40 ms"


# films, of pictures made up


def result_of(task: str, seed: int, success: bool) -> EpisodeResult:
    grey = np.full((128, 128, 3), 90, np.uint8)
    plans = [(0.2 * i, 0.2 * np.arange(1, 7), np.zeros((6, 2))) for i in range(3)]
    seen = Seen(grey, [(0.04 * i, grey + np.uint8(i)) for i in range(12)], plans)
    return EpisodeResult(task, seed, success, 0.3 if success else float("nan"), distance=0.07, seen=seen)


def decode(latents: np.ndarray) -> np.ndarray:
    return np.full((len(latents), 64, 64, 3), 200, np.uint8)


def test_films_are_kept_by_task_and_outcome_failures_first_on_the_sheet(tmp_path: Path) -> None:
    assert contact_sheet(tmp_path) is None
    results = [result_of("cube-single-1", 3, True), result_of("cube-single-1", 4, False)]
    paths_of = [film(tmp_path, result, decode) for result in results]
    assert [path.name for path in paths_of] == ["cube-single-1-success-3.mp4", "cube-single-1-failure-4.mp4"]
    assert [frames_of(path) for path in paths_of] == [12, 12]
    assert not wanted(tmp_path, results[0], 1) and wanted(tmp_path, results[0], 2) and wanted(tmp_path, result_of("scene-1", 3, True), 1)
    sheet = contact_sheet(tmp_path)
    assert sheet is not None and not list(tmp_path.glob("*.tmp.*"))
    whole, failure, success = (cv2.imread(str(path)) for path in (sheet, *(path.with_suffix(".png") for path in reversed(paths_of))))
    np.testing.assert_array_equal(whole[: len(failure)], failure)
    np.testing.assert_array_equal(whole[len(failure) + 6 : len(failure) + 6 + len(success)], success)


def test_an_episode_without_pictures_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures of scene-1 3 were kept"):
        film(tmp_path, EpisodeResult("scene-1", 3), decode)
    assert not list(tmp_path.iterdir())
