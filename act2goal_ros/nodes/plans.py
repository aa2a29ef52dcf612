"""Plans, their features and the selections of their frames, as the policy hears them.

subscribes: plan, plan_features, selection. What comes from another model, or does not fit its shape, is counted and left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from act2goal_msgs.msg import FrameSelection, Plan, PlanFeatures
from numpy.typing import NDArray

from act2goal_ros.control.planbook import PlanBook
from act2goal_ros.nodes import policy_messages as messages
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.trajectories import seconds


class PlanInlet:
    """Fills a PlanBook with what fits the model; prepare(plan_id, features) is called with the features (L, F, T, W)."""

    def __init__(self, node: Any, book: PlanBook, model_hash: str, prepare: Callable[[str, NDArray[np.float32]], object]) -> None:
        self._node, self._book, self._model_hash, self._prepare = node, book, model_hash, prepare
        node.own(node.create_subscription(Plan, topics.PLAN, self._on_plan, qos.LATCHED))
        node.own(node.create_subscription(PlanFeatures, topics.PLAN_FEATURES, self._on_features, qos.LATCHED))
        node.own(node.create_subscription(FrameSelection, topics.SELECTION, self._on_selection, qos.LATCHED))

    def _on_plan(self, message: Plan) -> None:
        if self._is_ours(message.model_hash, "plan"):
            self._book.add_plan(message.plan_id, seconds(message.header.stamp), np.array(message.frame_offsets))

    def _on_features(self, message: PlanFeatures) -> None:
        if not self._is_ours(message.model_hash, "plan_features"):
            return
        features = messages.features(message)
        if features is None:
            self._node.count("bad_plan_features")
            return
        self._book.add_features(message.plan_id, features)
        self._prepare(message.plan_id, features)

    def _on_selection(self, message: FrameSelection) -> None:
        self._book.select(messages.selected(message))

    def _is_ours(self, model_hash: str, what: str) -> bool:
        if model_hash == self._model_hash:
            return True
        self._node.count(f"{what}_of_another_model")
        return False
