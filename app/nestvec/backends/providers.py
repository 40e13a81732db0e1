"""Where models run: the GPUs that this process can use, and the provider that settings and machine lead to."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from nestvec.errors import ProviderError
from nestvec.system.cuda_driver import Gpu, read_driver


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
        "cpu" or "cuda". "auto" takes a GPU where onnxruntime can use one and the driver shows it.

    Raises:
        ProviderError: CUDA was requested by name and cannot be used; there is no silent fallback.
    """
    if requested == "cpu":
        return "cpu"
    if requested == "auto":
        return "cuda" if device_id < len(gpus()) and _has_gpu_build() else "cpu"
    if not _has_gpu_build():
        from nestvec.backends.ort import available_provider

        available_provider(requested)
    visible = read_driver().gpus
    if device_id >= len(visible):
        raise ProviderError(f"device_id is {device_id}, but the driver shows {len(visible)} GPUs")
    return "cuda"


def _has_gpu_build() -> bool:
    """Return whether onnxruntime can use CUDA.

    Its package's name tells: HTTP processes ask too, and should not load the library for that.
    """
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True
