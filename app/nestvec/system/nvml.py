"""The state of a GPU by NVIDIA's management library (NVML), for metrics and `nestvec doctor`."""

import contextlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from nestvec.errors import ProviderError

MILLIWATTS: Final = 1000.0
MILLIJOULES: Final = 1000.0
PERCENT: Final = 100.0


@dataclass(frozen=True, slots=True)
class GpuState:
    """The state of a GPU at one moment; None for what the card does not tell.

    Attributes:
        utilization: Share of the last sample period in which a kernel ran, 0 … 1.
        memory_used_bytes: Memory that all processes have taken.
        memory_total_bytes: All of its memory.
        temperature_c: Temperature of the chip, in degrees Celsius.
        power_w: Power that it draws, in watts.
        uncorrected_errors: Number of uncorrected memory errors since the driver started.
        energy_j: Energy that it has taken since the driver started, in joules.
    """

    utilization: float | None
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_c: float | None = None
    power_w: float | None = None
    uncorrected_errors: int | None = None
    energy_j: float | None = None


class Nvml:
    """The management library, ready to be asked.

    Args:
        library: The module pynvml, or a fake of it in tests; imported by default.

    Raises:
        ProviderError: The library is not installed, or there is no driver.
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
        """Return the state of a GPU now.

        Args:
            uuid: The GPU's UUID as the driver gives it, "GPU-…", also where it is a part of a card (MIG).

        Raises:
            ProviderError: The GPU does not answer: it is lost, or does not exist.
        """
        library = self._library
        try:
            handle = self._handle(uuid)
            memory = library.nvmlDeviceGetMemoryInfo(handle)
        except library.NVMLError as error:
            raise ProviderError(f"the GPU does not answer: {error}") from error
        # Not all cards tell everything, and virtual ones and parts of cards tell little.
        busy = self._optional(lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu)
        temperature = self._optional(
            library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU
        )
        power = self._optional(library.nvmlDeviceGetPowerUsage, handle)
        energy = self._optional(library.nvmlDeviceGetTotalEnergyConsumption, handle)
        errors = self._optional(
            library.nvmlDeviceGetTotalEccErrors,
            handle,
            library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            library.NVML_VOLATILE_ECC,
        )
        return GpuState(
            utilization=None if busy is None else busy / PERCENT,
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            temperature_c=temperature,
            power_w=None if power is None else power / MILLIWATTS,
            uncorrected_errors=None if errors is None else int(errors),
            energy_j=None if energy is None else energy / MILLIJOULES,
        )

    def close(self) -> None:
        """End the use of the library."""
        with contextlib.suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def _handle(self, uuid: str) -> Any:  # noqa: ANN401 - the library's own
        """Return a GPU's handle; the driver does not say of a UUID whether it is a card's or a part's."""
        try:
            return self._library.nvmlDeviceGetHandleByUUID(uuid)
        except self._library.NVMLError:
            part = uuid.replace("GPU-", "MIG-", 1)
            with contextlib.suppress(self._library.NVMLError):
                return self._library.nvmlDeviceGetHandleByUUID(part)
            raise

    def _optional(self, ask: Any, *arguments: Any) -> float | None:  # noqa: ANN401
        with contextlib.suppress(self._library.NVMLError):
            return float(ask(*arguments))
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
