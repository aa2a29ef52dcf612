"""Starts the graph that act2goal_ros/graph.py describes: `ros2 launch act2goal_ros bringup.launch.py --show-args`."""

import os
import tempfile
from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from act2goal_ros import graph
from act2goal_ros.control import presence
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

RESPAWN_DELAY = 1.0  # s
held = []  # the launch's lock and the folder of its parameter files, for as long as this process lives


def bring_up(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the environment and the nodes for the launch arguments given."""
    given = {argument.name: context.launch_configurations[argument.name] for argument in graph.ARGUMENTS}
    settings = graph.Settings.parse(given)
    folder = tempfile.TemporaryDirectory(prefix="act2goal_")
    held.extend([graph.take_launch(settings), folder])
    nodes = [
        Node(
            package="act2goal_ros",
            executable=node.executable,
            namespace=settings.namespace,
            parameters=[str(graph.write_parameters(node, settings, Path(folder.name)))],
            remappings=node.remappings,
            respawn=node.respawn,
            respawn_delay=RESPAWN_DELAY,
            output="both",
        )
        for node in graph.nodes(settings)
    ]
    variables = graph.environment(settings, os.environ) | {presence.LAUNCH: folder.name}
    return [*(SetEnvironmentVariable(*item) for item in variables.items()), *nodes]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they bring up."""
    # Choices are checked by graph.py, which also takes True and 1; what launch checks must be literal.
    arguments = [
        DeclareLaunchArgument(argument.name, default_value=argument.default, description=argument.explained)
        for argument in graph.ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=bring_up)])
