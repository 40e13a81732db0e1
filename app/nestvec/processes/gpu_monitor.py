"""Looks at this process's GPU every few seconds and tells the metrics."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from nestvec.backends.open import chosen_provider, gpus
from nestvec.config.settings import Settings
from nestvec.errors import ProviderError
from nestvec.observability.logs import get_logger
from nestvec.system.nvml import GpuState, Nvml

log = get_logger(__name__)

EVERY_S: Final = 5.0


class GpuMetrics(Protocol):
    """Where it is told."""

    def gpu_seen(self, number: int, state: GpuState) -> None:
        """It answers."""

    def gpu_silent(self, number: int) -> None:
        """It does not."""


def watch_gpu(settings: Settings, metrics: GpuMetrics) -> None:
    """Look after the GPU of this process for as long as it lives; nothing where there is none."""
    if chosen_provider(settings.provider, settings.device_id) != "cuda":
        return
    gpu = gpus()[settings.device_id]
    try:
        library = Nvml()
    except ProviderError as error:
        log.warning("gpu_metrics_off", reason=error.message)
        return
    GpuWatch(gpu.number, lambda: library.state(gpu.uuid), metrics).start()


@dataclass(slots=True)
class GpuWatch:
    """Looks in a thread of its own: a driver in trouble may take seconds to answer.

    Attributes:
        number: Of the GPU, as CUDA counts.
        look: Asks how it is; raises ProviderError where it does not answer.
        metrics: Told what was seen.
    """

    number: int
    look: Callable[[], GpuState]
    metrics: GpuMetrics
    _stop: threading.Event = field(default_factory=threading.Event)
    _answers: bool = True

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._live, name="nestvec-gpu-watch", daemon=True).start()

    def stop(self) -> None:
        """No more."""
        self._stop.set()

    def once(self) -> None:
        """One look."""
        try:
            self.metrics.gpu_seen(self.number, self.look())
        except ProviderError as error:
            self.metrics.gpu_silent(self.number)
            if self._answers:
                log.error("gpu_silent", device=self.number, reason=error.message)  # noqa: TRY400 - whole
            self._answers = False
            return
        if not self._answers:
            log.info("gpu_answers_again", device=self.number)
        self._answers = True

    def _live(self) -> None:
        self.once()
        while not self._stop.wait(EVERY_S):
            self.once()
