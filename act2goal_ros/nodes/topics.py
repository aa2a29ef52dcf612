"""Names of all topics, services and actions of the graph, relative to its namespace unless they start with '/'."""

IMAGE = "image_raw"
CAMERA_INFO = "camera_info"
JOINT_STATES = "joint_states"

GOAL = "goal"
GOAL_IMAGE = "goal/image"
TAKE_LIVE_FRAME = "goal/take_live_frame"
SET_GOAL = "goal/set"
CANCEL_GOAL = "goal/cancel"
REACH_GOAL = "reach_goal"

PLAN = "plan"
PLAN_FEATURES = "plan_features"
REPLAN = "replan"
LIVE_LATENT = "live_latent"
SELECTION = "selection"
PROGRESS = "progress"

CHUNK = "chunk"
CONTROL_STATUS = "control_status"
COMMANDED = "commanded/joint_trajectory"
ADAPTER = "adapter"

GRIPPER_COMMAND = "gripper_controller/command"
E_STOP = "e_stop"
STOP = "stop"
STATUS = "status"
DIAGNOSTICS = "/diagnostics"

SIM_STATE = "sim/state"
RESET_SIM = "sim/reset"
SET_TASK = "sim/set_task"


def joint_trajectory(controller: str) -> str:
    """Topic that takes trajectories of a joint trajectory controller."""
    return f"{controller}/joint_trajectory"


def follow_joint_trajectory(controller: str) -> str:
    """Action of a joint trajectory controller."""
    return f"{controller}/follow_joint_trajectory"


def controller_state(controller: str) -> str:
    """Topic on which a joint trajectory controller publishes reference, feedback and error."""
    return f"{controller}/controller_state"


def change_state(node: str) -> str:
    """Service that drives the lifecycle of a managed node."""
    return f"{node}/change_state"
