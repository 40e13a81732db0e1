"""How a GPU is, as NVIDIA's management library tells: for metrics and `nestvec doctor`."""

import contextlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from nestvec.errors import ProviderError

MILLIWATTS: Final = 1000.0
PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class GpuState:
    """A moment of a GPU's life; None where it does not tell.

    Attributes:
        utilization: Share of the last moment in which a kernel ran, 0 … 1.
        memory_used_bytes: By all processes.
        uncorrected_errors: Of its memory, since the driver started.
    """

    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_c: float | None = None
    power_w: float | None = None
    uncorrected_errors: int | None = None


class Nvml:
    """The library, loaded and begun.

    Args:
        library: pynvml, or what stands for it in tests.

    Raises:
        ProviderError: It is not installed, or there is no driver.
    """

    def __init__(self, library: ModuleType | Any = None) -> None:  # noqa: ANN401
        if library is None:
            try:
                import pynvml
            except ImportError as error:
                raise ProviderError(
                    "nvidia-ml-py is not installed (nestvec[gpu] has it)"
                ) from error
            library = pynvml
        self._library = library
        try:
            library.nvmlInit()
            self.driver = _text(library.nvmlSystemGetDriverVersion())
        except library.NVMLError as error:
            raise ProviderError(f"NVML does not start: {error}") from error

    def state(self, uuid: str) -> GpuState:
        """How a GPU is now.

        Args:
            uuid: As the driver has it, "GPU-…".

        Raises:
            ProviderError: It does not answer: it is lost, or there is none.
        """
        library = self._library
        try:
            handle = library.nvmlDeviceGetHandleByUUID(uuid)
            memory = library.nvmlDeviceGetMemoryInfo(handle)
            busy = library.nvmlDeviceGetUtilizationRates(handle).gpu / PERCENT
        except library.NVMLError as error:
            raise ProviderError(f"the GPU does not answer: {error}") from error
        # Not all cards tell all of it, and virtual ones tell little.
        warmth = self._told(library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU)
        power = self._told(library.nvmlDeviceGetPowerUsage, handle)
        errors = self._told(
            library.nvmlDeviceGetTotalEccErrors,
            handle,
            library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            library.NVML_VOLATILE_ECC,
        )
        return GpuState(
            utilization=busy,
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            temperature_c=warmth,
            power_w=None if power is None else power / MILLIWATTS,
            uncorrected_errors=None if errors is None else int(errors),
        )

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def _told(self, ask: Any, *arguments: Any) -> float | None:  # noqa: ANN401
        with contextlib.suppress(self._library.NVMLError):
            return float(ask(*arguments))
        return None


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said
