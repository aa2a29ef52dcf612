"""What each stage's loss is made of."""

from collections.abc import Mapping

from act2goal_ros.learning.schedule import TrainingError

STAGES = ("world", "stage1", "stage2", "distilled", "distance")
OF_LABELS = ("cube", "target", "choice", "imagined", "seen")  # a simulator's
# By recipe and stage. Both learn the temporal distance, whose network is apart from the others.
# paper: L_v + 0.1 L_a, then L_a; no simulator labels. shipped: what models/act2goal-tiny was trained with.
LABELLED = {"distance": 0.5, "cube": 1.0, "target": 1.0, "choice": 0.4, "imagined": 0.3, "seen": 0.1}
UNLABELLED = {"distance": 0.5, **dict.fromkeys(OF_LABELS, 0.0)}
OF_ACTIONS = {"action": 0.0, "cube": 0.0, "target": 0.0, "choice": 0.0, "seen": 0.0}  # what the world model alone does not learn
WEIGHTS: dict[str, dict[str, dict[str, float]]] = {
    "shipped": {
        "world": {"video": 0.5} | LABELLED | OF_ACTIONS,
        "stage1": {"video": 0.5, "action": 1.0} | LABELLED,
        "stage2": {"video": 0.0, "action": 1.0} | LABELLED,
        "distilled": {"action": 1.0},
        "distance": {"distance": 1.0},
    },
    "paper": {
        "world": {"video": 1.0} | UNLABELLED | OF_ACTIONS,
        "stage1": {"video": 1.0, "action": 0.1} | UNLABELLED,
        "stage2": {"video": 0.0, "action": 1.0} | UNLABELLED,
        "distilled": {"action": 1.0},
        "distance": {"distance": 1.0},
    },
}


def weights(recipe: str, stage: str, changes: Mapping[str, float]) -> dict[str, float]:
    """Weight of each loss, with single ones changed. Raises TrainingError for losses that there are not."""
    chosen = WEIGHTS[recipe][stage]
    if unknown := changes.keys() - WEIGHTS[recipe]["stage1"].keys():
        raise TrainingError(f"no loss {', '.join(sorted(unknown))}; there are {', '.join(WEIGHTS[recipe]['stage1'])}")
    return chosen | {name: value for name, value in changes.items() if name in chosen}
