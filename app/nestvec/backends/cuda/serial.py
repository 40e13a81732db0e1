"""A plain ONNX Runtime session on a GPU, run in the device's thread like everything else there."""

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.device_thread import DeviceThread
from nestvec.engine.backend import Backend
from nestvec.engine.types import Batch, RawOutput


class SerialBackend:
    """A backend that runs another one in the device's thread, one batch after the other.

    Args:
        backend: A backend that uses the device in its own way.
        thread: The device's thread.
    """

    def __init__(self, backend: Backend, thread: DeviceThread) -> None:
        self._backend, self._thread = backend, thread
        self.info = backend.info

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), int64, as the wrapped backend does."""
        return self._backend.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch and wait for it.

        Raises:
            BackendError: The runtime failed.
        """
        return self._thread.run(lambda: self._backend.run(batch))

    def close(self) -> None:
        """Free the wrapped backend's session; no `run` may follow."""
        self._thread.run(self._backend.close)
