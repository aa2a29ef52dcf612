"""benchmarks/cloning: samples, the policy that is trained here, and its episodes. ACT needs LeRobot's environment and is not."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("ogbench")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "cloning")]

import evaluate  # noqa: E402
import learning  # noqa: E402
import results  # noqa: E402
import torch  # noqa: E402
import train as cloning  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from policies import Gcbc  # noqa: E402
from samples import Clones, statistics  # noqa: E402
from training_under_test import TINY, small_episodes  # noqa: E402

from act2goal_ros.learning.batches import arrival  # noqa: E402
from act2goal_ros.learning.devices import make_fabric  # noqa: E402
from act2goal_ros.learning.fit import fit  # noqa: E402
from act2goal_ros.learning.schedule import Schedule  # noqa: E402
from act2goal_ros.model.config import PRESETS  # noqa: E402


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    episodes = small_episodes(tmp_path / "data")
    return Clones(episodes, [0, 1], TINY, 0)


def test_a_sample_is_a_frame_its_state_a_later_goal_and_what_was_commanded_next(clones: Clones) -> None:
    samples = clones.draw(50, np.random.default_rng(1))
    again = clones.draw(50, np.random.default_rng(1))
    assert torch.equal(samples.live, again.live) and torch.equal(samples.actions, again.actions)
    episodes = [clones._episodes.all[i] for i in (0, 1)]
    for live, goal, state, actions, weights in zip(*vars(samples).values(), strict=True):
        found = [(e, s) for e in episodes for s in range(len(e)) if np.allclose(e.joints[s], state[:6])]
        (episode, step), frames = found[0], found[0][0].frames
        assert np.allclose(state[6:12], episode.velocities[step]) and np.isclose(state[12], episode.gripper[step])
        shown = np.flatnonzero([np.array_equal(frame, (255 * goal).round().permute(1, 2, 0).to(torch.uint8)) for frame in frames])
        assert len(shown) and shown.max() * episode.stride >= min(step, arrival(episode))
        assert np.array_equal(frames[step // episode.stride], (255 * live).round().permute(1, 2, 0).to(torch.uint8))
        rows = [k for k in range(TINY.chunk_steps) if weights[k]]
        np.testing.assert_allclose(actions[rows], episode.command[[step + 1 + k for k in rows]], atol=1e-6)
        assert not episode.disturbed[[step + 1 + k for k in rows]].any()


def test_a_policy_learns_goes_on_and_becomes_the_same_in_onnx(clones: Clones, tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    policy, fabric = Gcbc(TINY, statistics(clones, 200)), make_fabric(threads=1)
    job = cloning.job(policy, clones, clones)
    before = job.check()[0]["error"]
    for steps in (4, 150):
        assert fit(job, Schedule(steps=steps, batch=16, learning_rate=3e-3, ema=0.9), tmp_path, fabric) == steps
    assert job.check()[0]["error"] < 0.7 * before
    cloning.export(policy, tmp_path / "policy.onnx")
    samples = clones.draw(1, np.random.default_rng(3))
    feed = {name: getattr(samples, name).numpy() for name in ("live", "goal", "state")}
    (served,) = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx")).run(["actions"], feed)
    with torch.no_grad():
        np.testing.assert_allclose(served, policy(samples.live, samples.goal, samples.state), atol=1e-4)


def test_episodes_of_a_policy_become_a_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (results, "RESULTS", tmp_path), (learning.results, "RESULTS", tmp_path), (evaluate, "EPISODES", tmp_path),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    config, size = PRESETS["tiny"], 2 * PRESETS["tiny"].joints + 1
    plain = (torch.zeros(size), torch.ones(size), torch.zeros(7), torch.ones(7))
    cloning.export(Gcbc(config, plain), tmp_path / "policy.onnx")
    (tmp_path / "about.json").write_text(json.dumps({"steps": 0}))
    monkeypatch.setattr(evaluate, "official_tasks", lambda _: ["cube-single-1"])
    called = CliRunner().invoke(evaluate.main, ["untrained", str(tmp_path), "--episodes", "1", "--seeds", "1", "--workers", "0"])
    assert called.exit_code == 0, called.output
    found = json.loads((tmp_path / "learning.json").read_text())["baselines"]["untrained"]
    assert (found["success_rate"], found["at_rest_rate"], found["episodes"], found["about"]) == (0.0, 0.0, 1, {"steps": 0})
