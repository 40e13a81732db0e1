"""Watches the GPU of this process: every few seconds it is asked for its state, which goes into the metrics."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from nestvec.backends.providers import gpus, resolve_provider
from nestvec.config.settings import Settings
from nestvec.errors import ProviderError
from nestvec.observability.logs import get_logger
from nestvec.system.nvml import GpuState, Nvml

log = get_logger(__name__)

INTERVAL_S: Final = 5.0


class GpuObserver(Protocol):
    """What a monitor tells about its GPU."""

    def gpu_answered(self, number: int, state: GpuState) -> None:
        """The GPU has told its state."""

    def gpu_silent(self, number: int) -> None:
        """The GPU does not answer."""


def start_gpu_monitor(settings: Settings, observer: GpuObserver, number: int | None = None) -> None:
    """Watch the GPU of this process for as long as the process lives; nothing where it has none.

    Args:
        settings: Settings whose `device_id` is the GPU's number in this process.
        observer: Told how it is.
        number: The number by which the observer knows the GPU; that of this process by default.
    """
    if resolve_provider(settings.provider, settings.device_id) != "cuda":
        return
    gpu = gpus()[settings.device_id]
    try:
        library = Nvml()
    except ProviderError as error:
        log.warning("gpu_metrics_off", reason=error.message)
        return
    known_as = gpu.number if number is None else number
    GpuMonitor(known_as, lambda: library.state(gpu.uuid), observer).start()


@dataclass(slots=True)
class GpuMonitor:
    """Asks a GPU for its state in a thread of its own: a driver in trouble may take seconds to answer.

    Attributes:
        number: Number of the GPU, as CUDA counts.
        read_state: Asks the GPU for its state; raises ProviderError where it does not answer.
        observer: Told what the GPU answered.
    """

    number: int
    read_state: Callable[[], GpuState]
    observer: GpuObserver
    _stop: threading.Event = field(default_factory=threading.Event)
    _answers: bool = True

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="nestvec-gpu-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()

    def check(self) -> None:
        """Ask once, and tell the observer."""
        try:
            self.observer.gpu_answered(self.number, self.read_state())
        except ProviderError as error:
            self.observer.gpu_silent(self.number)
            if self._answers:
                log.error("gpu_silent", device=self.number, reason=error.message)  # noqa: TRY400 - whole
            self._answers = False
            return
        if not self._answers:
            log.info("gpu_answers_again", device=self.number)
        self._answers = True

    def _run(self) -> None:
        self.check()
        while not self._stop.wait(INTERVAL_S):
            self.check()
