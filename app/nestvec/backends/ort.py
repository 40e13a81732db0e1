"""ONNX Runtime itself: which providers there are, how CUDA's libraries are found, and what its errors mean."""

import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import onnxruntime as ort

from nestvec.errors import (
    BackendError,
    BackendLostError,
    BackendMemoryError,
    ProviderError,
)
from nestvec.system.cuda_driver import LOST

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


# What allocators of onnxruntime, CUDA and C++ say; it has no class of error for it.
MEMORY_WORDS: Final = (
    "bad_alloc",
    "failed to allocate",
    "out of memory",
    "bfcarena",
    "cudaerrormemory",
    "alloc_failed",  # of cuBLAS
)


def is_memory_error(error: Exception) -> bool:
    """Whether a run failed for want of memory, so that a smaller batch may go well."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(word in said for word in MEMORY_WORDS)


# How onnxruntime words what CUDA returned.
CUDA_STATUS: Final = re.compile(r"CUDA failure (\d+)")


def backend_error(error: Exception) -> BackendError:
    """What a failed run means for the engine; none of onnxruntime's own words, which may quote values.

    Args:
        error: Of onnxruntime, which raises a family of unrelated exceptions.
    """
    if is_memory_error(error):
        return BackendMemoryError("onnxruntime had no memory for this batch")
    status = CUDA_STATUS.search(str(error))
    if status is not None and int(status[1]) in LOST:
        return BackendLostError(f"the GPU is lost: {LOST[int(status[1])]} (CUDA error {status[1]})")
    return BackendError("onnxruntime failed on this batch")


def choose_provider(asked: str, available: Sequence[str]) -> str:
    """Pick the execution provider.

    Args:
        asked: "auto", "cpu" or "cuda".
        available: Names onnxruntime was built with.

    Returns:
        "cuda" or "cpu"; auto takes CUDA where present.

    Raises:
        ProviderError: What was asked for by name is not there; never a silent fallback.
    """
    if asked == "auto":
        return "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if asked not in PROVIDERS:
        raise ProviderError(f"unknown provider '{asked}'; choose auto, {' or '.join(PROVIDERS)}")
    if PROVIDERS[asked] not in available:
        raise ProviderError(
            f"provider '{asked}' was asked for, but this onnxruntime has only "
            f"{', '.join(available)}; install nestvec[gpu] on a CUDA host, or use provider=auto"
        )
    return asked


def available_provider(asked: str) -> str:
    """`choose_provider` of what this onnxruntime was built with.

    Raises:
        ProviderError: It has not what was asked for by name.
    """
    return choose_provider(asked, ort.get_available_providers())


GEMM_OPTIONS: Final = "ORT_CUDA_GEMM_OPTIONS"  # onnxruntime's own


NO_HALF_REDUCTION: Final = "2"


NOT_STARTED: Final = (
    "CUDA did not start: check the driver and the CUDA libraries (`nestvec doctor`), "
    "or set provider to cpu"
)


def find_libraries() -> None:
    """Load CUDA and cuDNN where pip put them; without it a bare host reports missing libraries.

    Before the first session, as what is set here is read once.
    """
    # Long sums that cuBLAS splits are put together in float32, not in half floats.
    os.environ.setdefault(GEMM_OPTIONS, NO_HALF_REDUCTION)
    with contextlib.redirect_stdout(sys.stderr):  # where it says what it does not find
        ort.preload_dlls(directory="")
    # Failures come as exceptions; the library's own lines to stderr would quote values.
    ort.set_default_logger_severity(4)


def check_cuda_starts(device_id: int) -> None:
    """Open a graph of one node on CUDA: onnxruntime goes on where a library is missing, and then blames the model.

    Raises:
        ProviderError: It did not start.
    """
    find_libraries()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    providers = [(PROVIDERS["cuda"], {"device_id": str(device_id)}), PROVIDERS["cpu"]]
    try:
        session = ort.InferenceSession(IDENTITY, options, providers=providers)
    except Exception as error:
        raise ProviderError(f"{NOT_STARTED}: {error}") from error
    if session.get_providers()[0] != PROVIDERS["cuda"]:
        raise ProviderError(NOT_STARTED)


# An ONNX model whose output is its input, one float32.
IDENTITY: Final = bytes.fromhex(
    "080a3a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a08080112040a0208"
    "0142040a001014"
)
