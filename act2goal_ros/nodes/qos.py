"""Named QoS profiles: every publisher and subscription of the graph uses one of these."""

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

STATUS_LEASE = 0.08  # s without a sign of life until a process counts as dead
STATUS_DEPTH = 20

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
"""Camera frames, joint states, latents: only the newest counts, a lost one is not sent again."""

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Goal, plan, stop, adapter: who comes late still gets the last one."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
"""Commands and what belongs to one tick: must arrive, an old one must never be replayed."""

EVENT = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
"""Requests and images given by hand: all must arrive, none is repeated to late comers."""

STATUS = QoSProfile(
    depth=STATUS_DEPTH,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(nanoseconds=round(STATUS_LEASE * 1e9)),
)
"""Heartbeats of all nodes on one topic; the lease tells when a publisher's process is gone."""

STATUS_LISTENER = QoSProfile(depth=STATUS_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
"""Heartbeats for who only reads them (displays, recordings): no lease is watched."""
