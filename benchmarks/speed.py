"""The networks alone, on one core, as the nodes call them. No ROS."""

import os
import sys
import time
from typing import Any

import numpy as np
from tqdm import tqdm


def spread(values: Any) -> dict[str, float]:
    """p50, p99 and the largest."""
    return {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99)), "max": float(np.max(values))}


def tick(runs: int, core: int, model: str) -> dict[str, Any]:
    """A live picture in, a chunk out, on one core: conversion of the picture, one network, conversion of the chunk; ms."""
    from act2goal_ros import paths
    from act2goal_ros.serving.bundle import ModelBundle
    from act2goal_ros.serving.policy import Proprio

    os.sched_setaffinity(0, {core})
    bundle = ModelBundle.load(paths.model(model))
    policy, imagination, c = bundle.policy(threads=1), bundle.imagination(threads=1), bundle.config
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (50, c.camera_size, c.camera_size, 3), np.uint8)
    latents = [imagination.encode(picture) for picture in pictures[:2]]
    proprio, prefix = Proprio(np.zeros(c.joints), np.zeros(c.joints), 0.0), np.zeros((1, c.action_size))
    ticks, imagined = [], []
    for k in tqdm(range(runs + 50), unit="tick"):
        if k % 5 == 0:
            started = time.perf_counter()
            plan = imagination.imagine(latents[0], latents[1], k)
            imagined.append(time.perf_counter() - started)
            keys, mask = policy.set_plan(plan.features), policy.mask(plan, 0.1)
        started = time.perf_counter()
        policy.act(keys, policy.observe(pictures[k % 50]), proprio, mask, plan.offsets - 0.1, prefix)
        ticks.append(time.perf_counter() - started)
    assert "torch" not in sys.modules
    return {"tick_ms": spread(1000 * np.array(ticks[50:])), "imagination_ms": spread(1000 * np.array(imagined[10:]))}
