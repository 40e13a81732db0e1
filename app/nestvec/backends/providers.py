"""Where models run: the GPUs that this process can use, and the provider that settings and machine lead to."""

import logging
from functools import cache, lru_cache
from typing import Final

from nestvec.errors import ProviderError
from nestvec.system.cuda_driver import Gpu, read_driver
from nestvec.system.packages import installed_version

log = logging.getLogger(__name__)

# Compute capabilities for which the onnxruntime-gpu wheel, 1.31.1, has native code; it has none that a driver could
# compile for others.
KERNEL_CAPABILITIES: Final = ("7.5", "8.0", "8.6", "8.9", "9.0", "12.0")


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that the driver shows, none where there is no driver; the driver is asked only once."""
    try:
        return read_driver().gpus
    except ProviderError:
        return ()


def resolve_provider(requested: str, device_id: int) -> str:
    """Decide where models run.

    Args:
        requested: "auto", "cpu" or "cuda".
        device_id: Number of the GPU to use, as CUDA counts them.

    Returns:
        "cpu" or "cuda". "auto" takes a GPU where onnxruntime can use one, has kernels for it, and the driver shows it.

    Raises:
        ProviderError: CUDA was requested by name and cannot be used; there is no silent fallback.
    """
    if requested == "cpu":
        return "cpu"
    if requested == "auto":
        if device_id >= len(gpus()) or not _has_gpu_build():
            return "cpu"
        if has_kernels(gpus()[device_id].capability):
            return "cuda"
        _warn_of_card(gpus()[device_id])
        return "cpu"
    if not _has_gpu_build():
        from nestvec.backends.ort import available_provider

        available_provider(requested)
    visible = read_driver().gpus
    if device_id >= len(visible):
        raise ProviderError(f"device_id is {device_id}, but the driver shows {len(visible)} GPUs")
    if not has_kernels(visible[device_id].capability):
        raise ProviderError(f"{_without_kernels(visible[device_id])}; set provider to cpu")
    return "cuda"


def has_kernels(capability: str) -> bool:
    """Return whether onnxruntime can compute on a card of a compute capability, such as "8.9".

    Native code runs on cards of the same major capability from its own on (CUDA Programming Guide, binary
    compatibility).
    """
    major, minor = capability.split(".")
    return any(
        major == known.split(".")[0] and int(minor) >= int(known.split(".")[1])
        for known in KERNEL_CAPABILITIES
    )


def _without_kernels(gpu: Gpu) -> str:
    """Say that a card has no kernels, and which have."""
    return (
        f"{gpu.name} has compute capability {gpu.capability}, and onnxruntime-gpu has kernels for "
        f"{', '.join(KERNEL_CAPABILITIES)} only"
    )


@cache
def _warn_of_card(gpu: Gpu) -> None:
    """Say once why a card is not used."""
    log.warning("serving on the CPU: %s", _without_kernels(gpu))


def _has_gpu_build() -> bool:
    """Return whether onnxruntime can use CUDA.

    Its package's name tells: HTTP processes ask too, and should not load the library for that.
    """
    return installed_version("onnxruntime-gpu") is not None
