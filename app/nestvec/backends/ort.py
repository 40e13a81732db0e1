"""ONNX Runtime itself: which providers it has, how CUDA's libraries are found, and what its errors mean."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from nestvec.errors import (
    BackendError,
    BackendLostError,
    BackendMemoryError,
    FormatError,
    ModelMemoryError,
    NestvecError,
    ProviderError,
)
from nestvec.system.cuda_driver import LOST_DEVICE_ERRORS
from nestvec.system.cuda_libraries import CUDA_LIBRARIES, CudaLibraries, load_libraries
from nestvec.system.extras import how_to_install

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Words by which allocators of onnxruntime, CUDA, cuBLAS and C++ report that memory is short;
# onnxruntime has no class of error for it.
MEMORY_WORDS: Final = (
    "bad_alloc",
    "failed to allocate",
    "out of memory",
    "bfcarena",
    "cudaerrormemory",
    "alloc_failed",
    # cuBLAS says so where a new handle gets no memory.
    "cublas_status_not_initialized",
    "cublas failure 1:",
)
# How it names the library without which it has no kernel for a node: maxima and convolutions, among others.
CUDNN_WORD: Final = "cudnn"
# How onnxruntime words an error that CUDA returned.
CUDA_STATUS: Final = re.compile(r"CUDA failure (\d+)")
# onnxruntime's variable for cuBLAS, and its value that forbids reductions in half floats.
GEMM_OPTIONS: Final = "ORT_CUDA_GEMM_OPTIONS"
NO_HALF_REDUCTION: Final = "2"
# For sessions whose graphs need no cuDNN: they make no handle, which takes memory of the card and time.
WITHOUT_CUDNN: Final = {"enable_cudnn": "0"}
NOT_STARTED: Final = (
    "CUDA did not start: check the driver and the CUDA libraries (`nestvec doctor`), "
    "or set provider to cpu"
)
# An ONNX model of one Identity node, float32 [1] to float32 [1].
IDENTITY: Final = bytes.fromhex(
    "080a3a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a0208"
    "0142040a001014"
)


def is_memory_error(error: Exception) -> bool:
    """Return whether a run failed for want of memory, so that a smaller batch may succeed."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(word in text for word in MEMORY_WORDS)


def backend_error(error: Exception) -> BackendError:
    """Return the engine's error for a failed run, without onnxruntime's own words, which may quote values.

    Args:
        error: One of the family of unrelated exceptions that onnxruntime raises.
    """
    if is_memory_error(error):
        return BackendMemoryError("onnxruntime had no memory for this batch")
    if isinstance(error, NoKernelError) and CUDNN_WORD in str(error).lower():
        return BackendError(
            "a node of this graph needs cuDNN, which is not there: pip install 'nestvec[cudnn]'"
        )
    return _lost_error(error) or BackendError("onnxruntime failed on this batch")


def opening_error(path: Path, error: Exception) -> NestvecError:
    """Return the engine's error for a graph that cannot be opened: short memory and a lost GPU are not its fault.

    Args:
        path: The graph's file.
        error: What onnxruntime raised.
    """
    if is_memory_error(error):
        return ModelMemoryError(
            f"{path}: there is no memory left to open the graph: unload models, or see what else uses it"
        )
    return _lost_error(error) or FormatError(f"{path}: onnxruntime cannot open the graph ({error})")


def _lost_error(error: Exception) -> BackendLostError | None:
    """Return the error of a lost GPU; None where something else failed."""
    match = CUDA_STATUS.search(str(error))
    if match is None or (status := int(match[1])) not in LOST_DEVICE_ERRORS:
        return None
    return BackendLostError(f"the GPU is lost: {LOST_DEVICE_ERRORS[status]} (CUDA error {status})")


def choose_provider(requested: str, available: Sequence[str]) -> str:
    """Choose the execution provider.

    Args:
        requested: "auto", "cpu" or "cuda".
        available: Names of the providers that onnxruntime was built with.

    Returns:
        "cuda" or "cpu"; "auto" takes CUDA where it is present.

    Raises:
        ProviderError: The provider requested by name is missing; there is no silent fallback.
    """
    if requested == "auto":
        return "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if requested not in PROVIDERS:
        raise ProviderError(
            f"unknown provider '{requested}'; choose auto, {' or '.join(PROVIDERS)}"
        )
    if PROVIDERS[requested] not in available:
        raise ProviderError(
            f"provider '{requested}' was asked for, but this onnxruntime has only "
            f"{', '.join(available)}; on a CUDA host install the extra gpu ({how_to_install('gpu')}), "
            "or use provider=auto"
        )
    return requested


def available_provider(requested: str) -> str:
    """Choose among the providers that this onnxruntime was built with, as `choose_provider` does.

    Raises:
        ProviderError: The provider requested by name is missing.
    """
    return choose_provider(requested, ort.get_available_providers())


@cache
def find_libraries() -> CudaLibraries:
    """Load CUDA's libraries from wherever they are, once a process, and return what was found.

    Without this onnxruntime finds those only that the loader knows. Must be called before the first session, as
    onnxruntime reads the variable set here only once.
    """
    # Long sums that cuBLAS splits are put together in float32, not in half floats.
    os.environ.setdefault(GEMM_OPTIONS, NO_HALF_REDUCTION)
    # Failures come as exceptions; the library's own lines to stderr would quote values.
    ort.set_default_logger_severity(4)
    return load_libraries()


def check_cuda_starts(device_id: int) -> None:
    """Open a graph of one node on CUDA: where a library is missing onnxruntime goes on, and then blames the model.

    Raises:
        ProviderError: CUDA did not start.
    """
    libraries = find_libraries()
    absent = [name for name in CUDA_LIBRARIES if name not in libraries.found]
    without = f" ({', '.join(absent)} not found)" if absent else ""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    chosen = {"device_id": str(device_id), **WITHOUT_CUDNN}
    providers = [(PROVIDERS["cuda"], chosen), PROVIDERS["cpu"]]
    try:
        session = ort.InferenceSession(IDENTITY, options, providers=providers)
    except Exception as error:
        raise ProviderError(f"{NOT_STARTED}{without}: {error}") from error
    if session.get_providers()[0] != PROVIDERS["cuda"]:
        raise ProviderError(f"{NOT_STARTED}{without}")
