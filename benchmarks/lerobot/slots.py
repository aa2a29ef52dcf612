"""A piece of memory between the simulated arm and LeRobot's robot client, as quick as a register of real hardware.

Each value has one writer; a sequence number that is odd while it writes keeps readers from torn values. Nothing is pickled.
"""

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

JOINTS = 6
PICTURE = (128, 128, 3)


class Slot:
    """One array in shared memory."""

    def __init__(self, memory: mmap.mmap, offset: int, shape: tuple[int, ...], kind: type) -> None:
        self._sequence = np.frombuffer(memory, np.int64, 1, offset)
        self._value = np.frombuffer(memory, kind, int(np.prod(shape)), offset + 8).reshape(shape)

    @property
    def sequence(self) -> int:
        """Grows with every write."""
        return int(self._sequence[0])

    def write(self, *parts: NDArray[np.generic] | float) -> None:
        """Parts one after the other."""
        self._sequence[0] += 1
        flat, begin = self._value.reshape(-1), 0
        for part in parts:
            values = np.ravel(part)
            flat[begin : begin + len(values)] = values
            begin += len(values)
        self._sequence[0] += 1

    def read(self) -> NDArray[np.generic]:
        """A copy."""
        while True:
            before = self.sequence
            value = self._value.copy()
            if before % 2 == 0 and before == self.sequence:
                return value


class Slots:
    """state: time, joints rad, rad/s, gripper 0 .. 1, success time (NaN: not yet); command: joints rad, gripper 0 .. 1;
    and the newest frame with its stamp."""

    def __init__(self, path: Path, create: bool = False) -> None:
        state, command = (2 * JOINTS + 3,), (JOINTS + 1,)
        sizes = [8 * state[0], 8 * command[0], int(np.prod(PICTURE)) + 8]
        offsets = np.cumsum([0, *(8 + size for size in sizes)]).tolist()
        if create:
            path.write_bytes(b"\0" * offsets[-1])
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), offsets[-1])
        self.state = Slot(self._memory, offsets[0], state, np.float64)
        self.command = Slot(self._memory, offsets[1], command, np.float64)
        self._frame = Slot(self._memory, offsets[2], (sizes[2],), np.uint8)

    def show(self, stamp: float, picture: NDArray[np.uint8]) -> None:
        """A frame (H, W, 3) of the state at `stamp`."""
        self._frame.write(np.frombuffer(np.float64(stamp).tobytes(), np.uint8), picture)

    def frame(self) -> tuple[float, NDArray[np.uint8]]:
        """The newest frame's stamp and picture (H, W, 3)."""
        value = self._frame.read()
        return float(np.frombuffer(value[:8].tobytes(), np.float64)[0]), value[8:].reshape(PICTURE)
