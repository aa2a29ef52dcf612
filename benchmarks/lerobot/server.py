"""LeRobot's PolicyServer, as it is, on 127.0.0.1; its settings are LeRobot's defaults but for the control rate.

PolicyServer refuses policy types it does not list, so ours is added to that list; nothing else of LeRobot is changed.
"""

import sys

import onnx_policy  # noqa: F401 - registers the policy
import torch
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.async_inference.constants import SUPPORTED_POLICIES
from lerobot.async_inference.policy_server import serve


def main() -> None:
    """Arguments: port, control rate in Hz."""
    SUPPORTED_POLICIES.append(onnx_policy.OnnxPolicy.name)
    torch.set_num_threads(1)
    serve(PolicyServerConfig(host="127.0.0.1", port=int(sys.argv[1]), fps=int(sys.argv[2])))


if __name__ == "__main__":
    main()
