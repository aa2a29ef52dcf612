"""Scripted experts within the arm's limits: one for each kind of object, and one that puts them into order.

They are Markovian: what is done follows from the state, so a missed grasp or a dropped cube is simply tried again. Targets
are gripper poses; inverse kinematics is OGBench's; Ruckig turns joint targets into set-points that keep velocity,
acceleration and jerk limits.
"""
