"""Named QoS profiles: every publisher and subscription of the graph uses one of these."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
"""Camera frames, joint states, latents: only the newest counts, a lost one is not sent again."""

EDGE = QoSProfile(depth=4, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
"""Large frames of a camera's driver: a stall of one or two of their periods loses none; then the newest wins and is counted."""

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Goal, plan, stop, adapter: who comes late still gets the last one."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
"""Commands and what belongs to one tick: must arrive, an old one must never be replayed."""

EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
"""Requests and images given by hand: all must arrive, none is repeated to late comers."""

STATUS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
"""Heartbeats of all nodes on one topic. No liveliness lease: one short enough for 100 ms gave 28 false alarms a minute
with both cores loaded and missed some deaths altogether; the supervisor asks the kernel instead (control/presence.py)
and watches the heartbeats' age.
"""

RECORDED = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
"""What a recording listens with: matches every publisher, and a short stall of the recorder loses nothing."""

RECORDED_LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""The same for latched topics, whose last message also belongs to the recording."""
