"""What is said of the world model's pictures: each measure on pictures whose answer is known."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from act2goal_ros.cli.eval_world import command
from act2goal_ros.learning import world_measures
from act2goal_ros.learning.dataset import Episode, write_shard
from act2goal_ros.learning.localiser import Projection, centroid, errors
from act2goal_ros.learning.world_measures import Frame, Plan, frechet, measure, psnr, psnr_moved
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.serving.imagination import Imagined

SIDE = 64
CAMERA = np.array([[300.0, 0.0, 32.0, 10.0], [0.0, -200.0, -150.0, 100.0], [0.05, 0.0, 1.0, 3.0]])


def project(places: np.ndarray) -> np.ndarray:
    seen = np.concatenate([places, np.ones((len(places), 1))], 1) @ CAMERA.T
    return seen[:, :2] / seen[:, 2:]


def cube_at(right: float, down: float) -> np.ndarray:
    """A red square of 4 pixels' width on a grey table, its middle at these pixels."""
    rows, columns = np.indices((SIDE, SIDE))
    picture = np.full((SIDE, SIDE, 3), 60, np.uint8)
    picture[(abs(rows - down) < 2.01) & (abs(columns - right) < 2.01)] = [220, 40, 40]
    return picture


def test_the_cube_is_found_where_it_is() -> None:
    np.testing.assert_allclose(centroid(cube_at(20, 41)), [20, 41])
    assert centroid(np.full((SIDE, SIDE, 3), 90, np.uint8)) is None
    assert centroid(np.full((SIDE, SIDE, 3), (150, 40, 160), np.uint8)) is None, "the gripper is not red"


def test_errors_are_in_millimetres() -> None:
    places = np.random.default_rng(0).uniform([0.0, -0.1, 0.0], [0.3, 0.1, 0.2], (200, 3))
    pixels = project(places)
    pixels[::20] += 15.0  # half hidden
    projection = Projection(places, pixels)
    np.testing.assert_allclose(projection(places), project(places), atol=1e-3)
    moved = places[:1] + np.array([[0.0, 0.004, 0.0]])
    assert projection.error(project(moved)[0], places[0]) == pytest.approx(4.0, rel=0.4), "at most what is along the line of sight less"
    assert projection.error(project(places[:1])[0], places[0]) < 0.05
    found = errors(projection, [np.zeros((SIDE, SIDE, 3), np.uint8)], places[:1])
    assert np.isnan(found[0])
    with pytest.raises(ValueError, match="3 pictures with the thing to be seen, at least 20"):
        Projection(places[:3], pixels[:3])


def frame(imagined: np.ndarray, true: np.ndarray, live: np.ndarray, ahead: float = 0.7) -> Frame:
    latent = np.zeros((2, 4, 4), np.float32)
    return Frame("cube-single", ahead, imagined, true, true, live, latent, latent + 1, np.array([0.1, 0.0, 0.05]))


def test_psnr_of_what_moved() -> None:
    true, live = cube_at(20, 20), cube_at(40, 40)
    assert psnr(true, true) == 60.0
    assert psnr(np.full_like(true, 61), np.full_like(true, 60)) == pytest.approx(48.13, abs=0.01)
    assert psnr_moved(true, frame(true, true, live)) == 60.0
    assert psnr_moved(live, frame(live, true, live)) < 15.0 < psnr(live, true), "a copy looks well where nothing moves"
    assert psnr_moved(live, frame(live, live, live)) is None


def test_frechet_distance_of_known_normals() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(20_000, 3))
    assert frechet(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet(first + [2.0, 0.0, 0.0], first) == pytest.approx(4.0, abs=1e-6)
    assert frechet(3.0 * first, first) == pytest.approx(3 * 2.0**2, rel=0.03), "(3 − 1)² for each dimension"


def test_measures_by_horizon() -> None:
    true, live = cube_at(20, 20), cube_at(40, 40)
    near, far = frame(true, true, live, 0.4), frame(live, true, live, 3.0)
    found = measure([Plan([near, far], live, 2.0, 1.5), Plan([near, far], live, 4.5, 5.0)], None)
    assert set(found["by_horizon"]) == {"0-0.5s", "2-4s", "all"}
    assert found["by_horizon"]["0-0.5s"]["psnr_imagined"] == 60.0 > found["by_horizon"]["2-4s"]["psnr_imagined"]
    assert found["by_horizon"]["all"]["frames"] == 4
    assert found["temporal_distance"]["1-2s"] == {"absolute": 0.5, "bias": 0.5, "plans": 1}
    assert found["temporal_distance"]["all"]["bias"] == 0.0


class Straight:
    """An imagination whose latents are the pictures' means and whose plans are told."""

    class config:
        image_size = SIDE

    def encode(self, picture: np.ndarray) -> np.ndarray:
        return np.full((1, 2, 2), picture.mean() / 255, np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return np.stack([np.full((SIDE, SIDE, 3), 255 * latent.mean(), np.uint8) for latent in latents])

    def time_to_goal(self, live: np.ndarray, goal: np.ndarray) -> float:
        return 1.0


def test_true_frames_are_those_of_their_time(tmp_path: Path) -> None:
    steps, arrived = 80, 50
    joints = np.zeros((steps, 6))
    joints[:arrived, 0] = np.linspace(1.0, 0.0, arrived)
    rows = [
        {"joints": joints[i], "velocities": joints[i], "gripper": np.float32(0), "command": np.zeros(7), "disturbed": np.bool_(False),
         "cube": np.full(3, float(i))} | ({"frame": np.full((128, 128, 3), 2 * i, np.uint8)} if i % 2 == 0 else {})
        for i in range(steps)
    ]  # fmt: skip
    write_shard(tmp_path / "00000", [Episode.from_steps(rows, np.zeros(3)) for _ in range(4)])
    others, held = world_measures.held_out(tmp_path, 0.25, ModelConfig())
    assert (len(others), len(held)) == (3, 1)
    offsets = np.array([0.4, 0.8, 10.0])

    def make(live: np.ndarray, goal: np.ndarray, seed: int, seconds: float) -> Imagined:
        return Imagined(offsets, 2, np.zeros((1, 3, 1, 1)), np.zeros((3, 1, 2, 2), np.float32), seconds, 0.0)

    made = world_measures.plans(Straight(), make, held, 3, 0.05)
    assert len(made) == 3 and made[0].arrival == pytest.approx((arrived - 1) * 0.05, abs=0.11) and made[-1].arrival < 0.2
    assert [int(f.place[0]) for f in made[0].frames] == [8, 16, steps - 1]
    assert [int(f.true[0, 0, 0]) for f in made[0].frames] == [16, 32, 2 * (steps - 2)], "the last step is seen on the frame before it"
    shown = world_measures.pictures(made, 2)
    assert shown.shape == (4 * (2 * SIDE + world_measures.CAPTION), 2 * 5 * SIDE, 3)
    assert shown[: world_measures.CAPTION].min() < 128, "a caption"


def test_the_command_measures_recordings(tmp_path: Path) -> None:
    pytest.importorskip("ogbench")
    from act2goal_ros.learning.simulate import Recorder
    from act2goal_ros.sim.arm import SimulatedArm

    recordings, output = tmp_path / "data", tmp_path / "world.json"
    recorder = Recorder(SimulatedArm("cube-single-1"))
    write_shard(recordings / "00000", [episode for seed in range(400000, 400005) if (episode := recorder.record(seed)) is not None])
    measured = CliRunner().invoke(command, [str(recordings), "--share", "0.5", "--each", "3", "--output", str(output)])
    assert measured.exit_code == 0, measured.output
    found = json.loads(output.read_text())
    assert found["episodes"] >= 2 and found["one_pass"]["plans"] == 3 * found["episodes"]
    far = list(found["one_pass"]["by_horizon"].values())[-1]
    assert far["psnr_moved_imagined"] > far["psnr_moved_live"], "what is imagined is nearer to what came than what was there"
    assert cv2.imread(str(tmp_path / "world-one_pass.png")).std() > 10
