"""Every topic, service and action of the graph: type, QoS, who offers it, who uses it. Source of docs/topics.md."""

from __future__ import annotations

from dataclasses import dataclass

from act2goal_ros.nodes import topics

CONTROLLER = "<controller>"


@dataclass(frozen=True)
class Interface:
    """One topic, service or action. offered_by: publishers, server; used_by: subscribers, clients; '*': all nodes."""

    name: str
    type: str
    qos: str  # name in qos.py, '' for services and actions
    offered_by: tuple[str, ...]
    used_by: tuple[str, ...]
    meaning: str


_VIEW = "display"  # `act2goal status` and `act2goal up`
_ARM = "simulated_arm"  # or the driver of a real arm

TOPICS = (
    Interface(
        topics.IMAGE,
        "sensor_msgs/msg/Image",
        "SENSOR",
        ("camera", _ARM),
        ("goal", "imagination", "policy", "rollouts", _VIEW),
        "camera frames; the name comes from the robot's file",
    ),
    Interface(topics.CAMERA_INFO, "sensor_msgs/msg/CameraInfo", "SENSOR", ("camera", _ARM), (), "calibration"),
    Interface(
        topics.JOINT_STATES,
        "sensor_msgs/msg/JointState",
        "SENSOR",
        (_ARM,),
        ("goal", "policy", "rollouts", _VIEW),
        "measured joints, in any order",
    ),
    Interface(topics.GOAL_IMAGE, "sensor_msgs/msg/Image", "EVENT", (), ("goal",), "a picture that becomes the goal"),
    Interface(
        topics.GOAL,
        "act2goal_msgs/msg/Goal",
        "LATCHED",
        ("goal",),
        ("imagination", "msth", "policy", "rollouts", _VIEW),
        "picture, id and state; only ACTIVE moves the arm",
    ),
    Interface(
        topics.PLAN,
        "act2goal_msgs/msg/Plan",
        "LATCHED",
        ("imagination",),
        ("msth", "policy", "rollouts", _VIEW),
        "what was imagined: times, latents, previews",
    ),
    Interface(
        topics.PLAN_FEATURES,
        "act2goal_msgs/msg/PlanFeatures",
        "LATCHED",
        ("imagination",),
        ("policy",),
        "hidden states of the imagined frames, and where things are in them",
    ),
    Interface(
        topics.REPLAN,
        "act2goal_msgs/msg/Replan",
        "EVENT",
        ("msth",),
        ("imagination", "rollouts"),
        "asks for another plan, and why",
    ),
    Interface(
        topics.LIVE_LATENT, "act2goal_msgs/msg/LiveLatent", "SENSOR", ("policy",), ("msth",), "latent of the live frame"
    ),
    Interface(
        topics.SELECTION,
        "act2goal_msgs/msg/FrameSelection",
        "LATCHED",
        ("msth",),
        ("policy", "rollouts"),
        "the plan's frames that count now, with absolute times",
    ),
    Interface(
        topics.PROGRESS,
        "act2goal_msgs/msg/Progress",
        "SENSOR",
        ("msth",),
        ("goal", "rollouts", _VIEW),
        "progress and time to goal",
    ),
    Interface(
        topics.CHUNK, "act2goal_msgs/msg/Chunk", "COMMAND", ("policy",), ("rollouts",), "each output of the policy"
    ),
    Interface(
        topics.CONTROL_STATUS,
        "act2goal_msgs/msg/ControlStatus",
        "COMMAND",
        ("policy",),
        ("goal", "rollouts", _VIEW),
        "running, braking or holding, why, rates and latencies",
    ),
    Interface(
        topics.joint_trajectory(CONTROLLER),
        "trajectory_msgs/msg/JointTrajectory",
        "COMMAND",
        ("policy", "supervisor"),
        (_ARM, "rollouts", "supervisor"),
        "commands; each ends at rest",
    ),
    Interface(
        topics.COMMANDED,
        "trajectory_msgs/msg/JointTrajectory",
        "COMMAND",
        ("policy",),
        ("rollouts", "supervisor"),
        "what the policy sends by the controller's action, for those who watch; only with command_interface `action`",
    ),
    Interface(
        topics.controller_state(CONTROLLER),
        "control_msgs/msg/JointTrajectoryControllerState",
        "SENSOR",
        (_ARM,),
        ("policy", "rollouts", "supervisor"),
        "reference, feedback, error, speed scaling",
    ),
    Interface(
        topics.GRIPPER_COMMAND,
        "std_msgs/msg/Float64",
        "COMMAND",
        ("policy",),
        (_ARM, "rollouts"),
        "0 open .. 1 closed; only where the robot's gripper has the interface `topic`",
    ),
    Interface(
        topics.E_STOP,
        "std_msgs/msg/Bool",
        "EVENT",
        (),
        ("policy", "rollouts", "supervisor"),
        "true: emergency stop pressed; with any QoS; of several buttons the last message counts",
    ),
    Interface(
        topics.STOP,
        "act2goal_msgs/msg/Stop",
        "LATCHED",
        ("supervisor",),
        ("goal", "policy", "rollouts", _VIEW),
        "while active nothing may move; reason and detail",
    ),
    Interface(
        topics.STATUS,
        "act2goal_msgs/msg/NodeStatus",
        "STATUS",
        ("*",),
        ("policy", "supervisor", _VIEW),
        "heartbeats, 10 Hz a node",
    ),
    Interface(
        topics.DIAGNOSTICS, "diagnostic_msgs/msg/DiagnosticArray", "EVENT", ("supervisor",), (), "all nodes, 1 Hz"
    ),
    Interface(
        topics.ADAPTER,
        "act2goal_msgs/msg/Adapter",
        "LATCHED",
        (),
        ("policy", "rollouts"),
        "a LoRA adapter, by path and hash; in force from the next chunk",
    ),
    Interface(
        topics.SIM_STATE,
        "act2goal_msgs/msg/SimState",
        "SENSOR",
        (_ARM,),
        ("rollouts", _VIEW),
        "success and objects, for evaluation; the policy never sees it",
    ),
)

SERVICES = (
    Interface(
        topics.SET_GOAL, "act2goal_msgs/srv/SetGoalImage", "", ("goal",), (), "a file or a picture becomes the goal"
    ),
    Interface(
        topics.TAKE_LIVE_FRAME, "std_srvs/srv/Trigger", "", ("goal",), (), "what the camera sees becomes the goal"
    ),
    Interface(topics.CANCEL_GOAL, "std_srvs/srv/Trigger", "", ("goal",), (), "the arm brakes and holds"),
    Interface(
        topics.RESET_SIM, "act2goal_msgs/srv/ResetSim", "", (_ARM,), (), "starts an episode, returns its goal picture"
    ),
    Interface(topics.SET_TASK, "act2goal_msgs/srv/SetTask", "", (_ARM,), (), "chooses the task, returns what there is"),
    Interface(
        topics.change_state("<node>"),
        "lifecycle_msgs/srv/ChangeState",
        "",
        ("*",),
        ("supervisor",),
        "lifecycle of every node",
    ),
    Interface(
        f"{CONTROLLER}/get_parameters",
        "rcl_interfaces/srv/GetParameters",
        "",
        (_ARM,),
        ("policy",),
        "how the controller replaces a running trajectory; not asked where the robot's file says it",
    ),
)

ACTIONS = (
    Interface(
        topics.REACH_GOAL,
        "act2goal_msgs/action/ReachGoal",
        "",
        ("goal",),
        (),
        "reach a picture; feedback: progress, time to goal, why the arm stands",
    ),
    Interface(
        topics.follow_joint_trajectory(CONTROLLER),
        "control_msgs/action/FollowJointTrajectory",
        "",
        (_ARM,),
        ("policy",),
        "the controller's action; the policy uses it with command_interface `action`, else the topic",
    ),
    Interface(
        "<gripper>/gripper_cmd",
        "control_msgs/action/GripperCommand",
        "",
        (),
        ("policy",),
        "or ParallelGripperCommand; where the robot's gripper has such an interface",
    ),
)
