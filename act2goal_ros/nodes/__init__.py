"""The ROS 2 nodes: thin adapters between topics and the plain objects of the other packages."""

import os

# One thread a process for linear algebra: the nodes share few cores, and spinning worker threads starve each other.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
