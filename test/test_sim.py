"""The simulated arm and its expert."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("ogbench")

from act2goal_ros.learning.simulate import Disturbances, PolicyDriver, Recorder, _Turns  # noqa: E402
from act2goal_ros.serving.policy import Proprio  # noqa: E402
from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.experts.motion import ExpertLimits  # noqa: E402
from act2goal_ros.sim.look import DISTRACTOR, PLAIN, RANGE, UNSEEN, UNSEEN_HUES, LookRange  # noqa: E402
from act2goal_ros.sim.scene import CAMERA, CubeScene  # noqa: E402


@pytest.fixture(scope="module")
def arm() -> SimulatedArm:
    return SimulatedArm()


def test_a_seed_fixes_the_reset(arm: SimulatedArm) -> None:
    first = arm.reset("cube-single-2", 7)
    state = arm.data.qpos.copy()
    arm.reset("cube-single-4", 3)
    second = arm.reset("cube-single-2", 7)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(state, arm.data.qpos)
    assert first.shape == (128, 128, 3)


def test_the_goal_picture_leaves_the_scene_alone(arm: SimulatedArm) -> None:
    goal = arm.reset("cube-single-1", 1)
    assert np.abs(goal.astype(int) - arm.render()).max() > 60
    np.testing.assert_allclose(arm.target_positions, [[0.425, -0.1, 0.02]])
    assert np.abs(arm.object_positions[0, :2] - [0.425, 0.1]).max() <= 0.01
    assert not arm.success()


def test_light_meshes_weigh_the_same() -> None:
    masses = []
    for light in (True, False):
        scene = CubeScene(light=light)
        scene.reset(seed=0, options={"task_id": 1})
        model = scene.model
        masses.append({model.body(i).name: model.body_mass[i] for i in range(model.nbody) if model.body(i).name != "distractor"})
    assert masses[0].keys() == masses[1].keys()
    np.testing.assert_allclose([*masses[0].values()], [*masses[1].values()], rtol=1e-6)


def test_light_meshes_look_alike() -> None:
    """Against OGBench's own rendering, without what the light one leaves out: shadows and multisampling."""
    pictures = []
    for light in (True, False):
        scene = CubeScene(render_size=128, light=light)
        scene.reset(seed=0, options={"task_id": 1})
        scene.model.light_castshadow[:] = 0
        pictures.append(scene.render(camera=CAMERA).astype(float))
    assert np.abs(pictures[0] - pictures[1]).mean() < 4.0


def test_unknown_tasks_are_named(arm: SimulatedArm) -> None:
    with pytest.raises(ValueError, match="unknown task 'cube-9'; there are cube-single-1"):
        arm.reset("cube-9")


def test_the_expert_gets_there_within_its_limits(arm: SimulatedArm) -> None:
    recorder = Recorder(arm, Disturbances(kick=0, miss=0, drop=0, misplace=0, sloppy=0, placed=0))
    for seed in range(3):
        episode = recorder.record(seed)
        assert episode is not None
        assert np.linalg.norm(episode.cube[-1] - episode.target[-1]) < 0.02
        assert not episode.disturbed.any()
        speed = np.abs(np.diff(episode.command[:, :6], axis=0)) / 0.05
        assert speed.max() <= ExpertLimits().velocity + 1e-3


def test_the_expert_recovers_from_a_miss_and_a_drop(arm: SimulatedArm) -> None:
    episode = Recorder(arm, Disturbances(kick=1, miss=1, drop=1, sloppy=0, placed=0)).record(4)
    assert episode is not None
    assert 0.02 < episode.disturbed.mean() < 0.9
    grasps = np.diff((episode.command[:, 6] > 0.5).astype(int)) == 1
    assert grasps.sum() >= 2


class _Wanderer:
    """Moves one joint, and closes the gripper, whatever is seen."""

    def __init__(self) -> None:
        self.goals: list[np.ndarray] = []
        self.pictures: list[bool] = []

    def begin(self, arm: SimulatedArm, goal: np.ndarray) -> None:
        self.goals.append(goal)

    def advance(self, arm: SimulatedArm, picture: np.ndarray | None) -> tuple[np.ndarray, float]:
        self.pictures.append(picture is not None)
        return arm.joint_positions + np.array([0.05, 0, 0, 0, 0, 0]), 1.0


def lengths(flags: np.ndarray) -> np.ndarray:
    """Of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return edges[1::2] - edges[::2]


def test_the_expert_makes_up_for_what_a_driver_did(arm: SimulatedArm) -> None:
    driver = _Wanderer()
    clean = Disturbances(kick=0, miss=0, drop=0, misplace=0, sloppy=0, placed=0)
    episode = Recorder(arm, clean, driver=driver, driven=2.0).record(3)
    assert episode is not None and len(driver.goals) == 1
    driven = np.flatnonzero(episode.disturbed) - 1  # a step's command is that of the step before
    assert len(driven) == len(driver.pictures), "the driver's steps are not learnt, the expert's are"
    assert driver.pictures == (driven % 2 == 0).tolist(), "it sees every frame that is recorded"
    turns = lengths(episode.disturbed)
    assert len(turns) >= 2 and turns[:-1].min() >= 10 and turns.max() <= 40
    assert lengths(~episode.disturbed)[1:].min() >= 10
    assert np.linalg.norm(episode.cube[-1] - episode.target[-1]) < 0.02
    assert np.abs(np.diff(episode.command[:, :6], axis=0)).max() < 0.15, "they take over from each other without a jump"


@pytest.mark.parametrize("longest", [5, 30])
def test_driver_and_expert_take_turns(longest: int) -> None:
    starts = set()
    for seed in range(20):
        turns = _Turns(np.random.default_rng(seed), longest)
        drivers = np.array([turns.is_drivers() for _ in range(600)])
        starts.add(bool(drivers[0]))
        whole = np.diff(np.flatnonzero(np.diff(drivers)))
        assert whole.min() >= 10 and whole.max() <= max(longest, 11) and len(set(whole)) > 1
    assert starts == {False, True}, "either begins"


class _Bundle:
    """A model that stays where the arm is, and counts its plans; its chunks are of 16 rows."""

    def __init__(self) -> None:
        self.plans = 0

    def imagination(self, threads: int) -> "_Bundle":
        return self

    policy = imagination

    def encode(self, picture: np.ndarray) -> np.ndarray:
        return picture

    def observe(self, picture: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(latent=picture)

    def imagine(self, live: np.ndarray, goal: np.ndarray, seed: int) -> SimpleNamespace:
        self.plans += 1
        return SimpleNamespace(features=None, offsets=None)

    def set_plan(self, features: None) -> None: ...

    def mask(self, plan: SimpleNamespace, age: float) -> None: ...

    def act(self, keys: None, frame: SimpleNamespace, proprio: Proprio, mask: None, offsets: None) -> SimpleNamespace:
        return SimpleNamespace(positions=np.tile(proprio.joints, (16, 1)), gripper=np.zeros(16))


def test_a_policy_s_turn_may_begin_at_any_step(arm: SimulatedArm) -> None:
    """Pictures come with every second; it plans as often as without turns, and its chunks never run out."""
    clean, begun = Disturbances(kick=0, miss=0, drop=0, misplace=0, sloppy=0, placed=0), set()
    for seed in range(4):
        bundle = _Bundle()
        episode = Recorder(arm, clean, driver=PolicyDriver(bundle), driven=2.0).record(seed)  # type: ignore[arg-type]
        if episode is None:  # so many turns leave too little time
            continue
        assert bundle.plans >= episode.disturbed.sum() // 5
        begun |= set(np.flatnonzero(np.diff(episode.disturbed.astype(int)) == 1) % 2)
    assert begun, "some turns begin in mid-episode"


def test_without_pictures_the_same_is_recorded(arm: SimulatedArm) -> None:
    seen, blind = (Recorder(arm, Disturbances(kick=1, miss=1), pictures=pictures).record(5) for pictures in (True, False))
    assert seen is not None and blind is not None
    for name in ("joints", "velocities", "gripper", "command", "disturbed", "cube", "target", "keypoints"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(blind, name), err_msg=name)
    assert seen.frames.shape[1:] == (128, 128, 3) and blind.frames.shape == (len(seen.frames), 1, 1, 3)


def test_a_random_look_changes_what_the_camera_sees_and_nothing_else() -> None:
    arm = SimulatedArm("cube-double-1")
    plain_goal, plain = arm.reset("cube-double-1", seed=3), arm.render()
    start = arm.data.qpos.copy()
    for limits in (RANGE, *UNSEEN.values()):
        arm.look = limits
        goal, seen = arm.reset("cube-double-1", seed=3), arm.render()
        assert np.abs(seen.astype(int) - plain).mean() > 0.02
        assert np.abs(goal.astype(int) - plain_goal).mean() > 0.02
        np.testing.assert_array_equal(arm.data.qpos, start)
        np.testing.assert_array_equal(arm.reset("cube-double-1", seed=3), goal)  # the seed decides
        before = np.concatenate([arm.model.cam_quat.ravel(), arm.model.light_diffuse.ravel()])
        arm.reset("cube-double-2", seed=3)
        after = np.concatenate([arm.model.cam_quat.ravel(), arm.model.light_diffuse.ravel()])
        assert (after != before).any() == (limits.camera_angle + limits.light > 0.0), "another task of the seed has another look"
    arm.look = None
    np.testing.assert_array_equal(arm.reset("cube-double-1", seed=3), plain_goal)
    np.testing.assert_array_equal(arm.render(), plain)


def looks_of(arm: SimulatedArm, limits: LookRange, seeds: int = 40) -> dict[str, np.ndarray]:
    """What `seeds` looks make of the model, (seeds, …) each."""
    arm.look, found = limits, []
    for seed in range(seeds):
        arm.reset("cube-single-1", seed=seed)
        model = arm.model
        camera = model.cam("front_pixels").id
        found.append(
            {
                "place": model.cam_pos[camera].copy(),
                "turn": model.cam_quat[camera].copy(),
                "lamps": model.light_diffuse.copy(),
                "shadow": model.light_castshadow[:1].copy(),
                "floor": model.mat_rgba[model.mat("grid").id, :3].copy(),
                "arm": np.array([model.mat_rgba[i, 3] for i in range(model.nmat) if model.mat(i).name.startswith("ur5e/")]),
                "thing": arm.data.mocap_pos[model.body(DISTRACTOR).mocapid[0]].copy(),
            }
        )
    arm.look = None
    return {name: np.array([look[name] for look in found]) for name in found[0]}


def test_random_looks_vary_camera_light_and_background_within_bounds() -> None:
    arm = SimulatedArm("cube-single-1")
    plain = {name: values[0] for name, values in looks_of(arm, PLAIN, 1).items()}
    drawn = looks_of(arm, RANGE)
    moved = drawn["place"] - plain["place"]
    assert np.abs(moved).max() <= 0.02 and (np.ptp(moved, axis=0) > 0.025).all()
    turned = np.rad2deg(2 * np.arccos(np.clip(np.abs(drawn["turn"] @ plain["turn"]), 0, 1)))
    assert turned.max() <= 3 * np.sqrt(3) + 1e-6 and turned.max() > 2.5
    for name, bound in (("lamps", RANGE.light + RANGE.tint), ("floor", RANGE.light + RANGE.tint)):
        lit = plain[name] > 0
        factor = np.log(drawn[name][:, lit] / plain[name][lit])
        assert np.abs(factor).max() <= bound + 1e-6 and (np.ptp(factor, axis=0) > bound).all(), name
    assert 0.2 < drawn["shadow"].mean() < 0.6
    assert drawn["arm"].min() >= 0.0 and drawn["arm"].max() > plain["arm"].max() + 0.3, "the arm is sometimes opaque"
    assert 0.3 < (drawn["thing"][:, 2] > 0).mean() < 0.7, "something lies about in every second look"


@pytest.mark.parametrize(
    ("setting", "changed"), [("camera", {"place", "turn"}), ("light", {"lamps", "shadow", "floor"}), ("distractor", {"thing"})]
)
def test_an_unseen_look_changes_one_thing(setting: str, changed: set[str]) -> None:
    arm = SimulatedArm("cube-single-1")
    plain, drawn = looks_of(arm, PLAIN, 1), looks_of(arm, UNSEEN[setting], 12)
    assert {name for name, values in drawn.items() if (values != plain[name]).any()} == changed


def test_hues_of_a_lone_cube_are_of_its_looks_range_and_tell_its_kind() -> None:
    arm = SimulatedArm("cube-single-1")
    drawn: dict[str, list[float]] = {"seen": [], "unseen": []}
    kinds = set()
    for name, look in (("seen", replace(RANGE, recoloured=1.0)), ("unseen", UNSEEN["cube_colours"])):
        arm.look = look
        for seed in range(40):
            arm.reset("cube-single-1", seed=seed)
            colour = arm.scene._cube_colors[:1, :3].astype(np.float32)
            np.testing.assert_allclose(arm.model.geom_rgba[arm.scene._cube_geom_ids_list[0]][:, :3], colour, atol=1e-6)
            hue = float(cv2.cvtColor(colour[None], cv2.COLOR_RGB2HSV)[0, 0, 0])
            drawn[name].append(hue)
            (kind,) = (thing for thing in arm.scene.things() if thing.startswith("cube"))
            kinds.add(kind)
            away = {f"cube {i}": abs((hue - own + 180) % 360 - 180) for i, own in enumerate((354.0, 218.6, 36.5))}
            assert away[kind] <= min(away.values()) + 0.2  # degrees
    assert kinds == {"cube 0", "cube 1", "cube 2"}
    unseen = np.array([any(low <= hue <= high for low, high in UNSEEN_HUES) for hue in drawn["unseen"]])
    assert unseen.all() and np.ptp(drawn["unseen"]) > 150
    assert not any(low < hue < high for hue in drawn["seen"] for low, high in UNSEEN_HUES)
    arm.look = None
    arm.reset("cube-single-1", seed=0)
    assert "cube 0" in arm.scene.things()


def test_the_distractor_touches_nothing() -> None:
    arm = SimulatedArm("cube-single-1", look=replace(PLAIN, distractor=1.0))
    arm.reset("cube-single-1", seed=0)
    geom = arm.model.geom("distractor")
    assert geom.contype == 0 and geom.conaffinity == 0
    place = arm.data.geom_xpos[geom.id]
    assert place[2] > 0.0
    for thing in (*arm.object_positions, *arm.target_positions):
        assert np.linalg.norm(place[:2] - thing[:2]) > 0.12
