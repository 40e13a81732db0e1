"""Runs ONNX graphs; the one file that imports onnxruntime."""

import contextlib
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from app.engine.backend import BackendOptions, CostModel
from app.engine.device.cuda_device import LOST
from app.engine.device.memory import Device
from app.engine.device.session import BFLOAT16, Bound, Tensor
from app.engine.graph_io import (
    EXIT,
    LAYERS,
    LAYERS_PROPERTY,
    SHORT_ROWS,
    TOKEN_OUTPUTS,
    feedable,
    packed_states,
    token_output,
)
from app.engine.types import Batch, FloatArray, Layout, RawOutput
from app.errors import (
    BackendError,
    BackendLostError,
    BackendMemoryError,
    FormatError,
    ProviderError,
)

log = logging.getLogger(__name__)

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# The contrib SkipLayerNormalization is scalar on CPU, seven times slower than Add + LayerNormalization; the
# others would refuse Gemm + Gelu its bias (measured on onnxruntime 1.31).
CPU_DISABLED_FUSIONS: Final = (
    "SkipLayerNormFusion",
    "LayerNormFusion",
    "BiasGeluFusion",
    "GeluFusion",
)


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


class OnnxBackend:
    """One InferenceSession, shared by all workers.

    Args:
        path: The graph; external data lies beside it.
        layout: Which inputs it takes.
        options: Provider and threads.

    Raises:
        FormatError: The graph cannot be read, or its inputs and outputs are not what the layout says.
        ProviderError: The provider asked for is missing or did not start.
    """

    pooling = ""
    max_cost = math.inf

    def __init__(self, path: Path, layout: Layout, options: BackendOptions) -> None:
        self.layout = layout
        self._plain_attention_tokens = options.plain_attention_tokens
        chosen = available_provider(options.provider)
        self._session = _open(path, chosen, options)
        active = self._session.get_providers()
        self.provider = "cuda" if active[0] == PROVIDERS["cuda"] else "cpu"
        if options.provider == "cuda" and self.provider != "cuda":
            raise ProviderError(NOT_STARTED)
        if chosen != self.provider:
            log.warning("this onnxruntime has CUDA, but it did not start: serving on the CPU")
        self._inputs = feedable(path, layout, [node.name for node in self._session.get_inputs()])
        outputs = {node.name: node for node in self._session.get_outputs()}
        self._output = token_output(path, list(outputs))
        width = outputs[self._output].shape[-1]
        if not isinstance(width, int):
            raise FormatError(f"{path}: the last axis of output '{self._output}' has no fixed size")
        self.hidden_size = width
        self.gives_tokens = self._output in TOKEN_OUTPUTS
        said = self._session.get_modelmeta().custom_metadata_map
        self.layers = int(said[LAYERS_PROPERTY]) if LAYERS in self._inputs else 0
        self.gives_exits = f"{EXIT}1" in outputs
        self._cost = CostModel.of_bert(layout, width)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch in token equivalents; see `CostModel`."""
        return self._cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: onnxruntime failed.
        """
        feeds = {name: batch.arrays[name] for name in self._inputs if name in batch.arrays}
        if SHORT_ROWS in self._inputs:
            feeds[SHORT_ROWS] = np.asarray(batch.lengths.max() <= self._plain_attention_tokens)
        if self.layers:
            feeds[LAYERS] = np.asarray(batch.exits[-1] if batch.exits else self.layers, np.int64)
        names = [*(f"{EXIT}{layer}" for layer in batch.exits[:-1]), self._output]
        try:
            found: list[FloatArray] = self._session.run(names, feeds)
        except Exception as error:
            raise backend_error(error) from error
        *earlier, output = [one.astype(np.float32, copy=False) for one in found]
        return replace(packed_states(batch, self._output, output), earlier=tuple(earlier))

    def close(self) -> None:
        """Free the session."""
        del self._session


# Flash and CUTLASS attention, no others: any positive value drops the least lengths below which neither is taken, and
# the preference for cuDNN, whose graphs are compiled anew for each shape.
ATTENTION_KERNELS: Final = "3"
# Gemm writes a bias first and reads it again; our graphs have none, and this would make some.
DEVICE_DISABLED_FUSIONS: Final = ("MatMulAddFusion",)
GEMM_OPTIONS: Final = "ORT_CUDA_GEMM_OPTIONS"  # onnxruntime's own
NO_HALF_REDUCTION: Final = "2"
ONNX_BFLOAT16: Final = 16
TENSOR_TYPE: Final = re.compile(r"tensor\((\w+)\)")
NUMPY_NAMES: Final = {"float": "float32"}
SHRINK: Final = "memory.enable_memory_arena_shrinkage"


class OnnxDeviceSession:
    """A graph on a device, bound to memory that its caller owns; see `device.session.DeviceSession`.

    Args:
        path: The graph.
        device: Where; of kind "cpu" the same on the host, for tests.
        memory_limit: Bytes that its arena may take; 0 for no bound.
        captures: Whether runs are to be captured.
        profiles: Whether to note where nodes run; see `placement`.
        optimises: Whether onnxruntime is to rewrite the graph: one of others', not ours.

    Raises:
        FormatError: It cannot be opened, or not be captured.
        ProviderError: The device did not start.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        *,
        memory_limit: int,
        captures: bool,
        profiles: bool = False,
        optimises: bool = False,
    ) -> None:
        self._optimises = optimises
        self._device, self.captures = device, captures
        self._notes = tempfile.mkdtemp(prefix="nestvec-profile-") if profiles else None
        is_cuda = device.kind == "cuda"
        options = ort.SessionOptions()
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimises else levels.ORT_ENABLE_BASIC
        )
        options.intra_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        if self._notes is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._notes) / "run")
        providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
        if is_cuda:
            find_libraries()
            providers.insert(0, (PROVIDERS["cuda"], self._cuda_options(memory_limit)))
        try:
            self._session = ort.InferenceSession(
                str(path),
                options,
                providers=providers,
                disabled_optimizers=[] if optimises else list(DEVICE_DISABLED_FUSIONS),
            )
        except Exception as error:
            raise FormatError(f"{path}: onnxruntime cannot open the graph ({error})") from error
        if is_cuda and self._session.get_providers()[0] != PROVIDERS["cuda"]:
            raise ProviderError(NOT_STARTED)
        self.inputs = {node.name: _tensor(node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _tensor(node) for node in self._session.get_outputs()}
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._bindings: dict[int, ort.IOBinding] = {}
        self._options: dict[int | None, ort.RunOptions] = {None: self._run_options(-1)}
        self._shrinks = False

    def run(
        self, inputs: Sequence[Bound], outputs: Sequence[Bound], graph_number: int | None = None
    ) -> None:
        """See `DeviceSession`."""
        binding = self._bindings.get(graph_number or 0)
        if binding is None:
            binding = self._session.io_binding()
            if graph_number is not None:  # its memory is always the same
                self._bindings[graph_number] = binding
                self._options[graph_number] = self._run_options(graph_number)
            self._bind(binding, inputs, outputs)
        chosen = self._options[graph_number]
        if self._shrinks and graph_number is None:
            chosen, self._shrinks = self._run_options(-1, shrinks=True), False
        try:
            self._session.run_with_iobinding(binding, chosen)
        except Exception as error:
            found = backend_error(error)
            # What the arena has in pieces of the wrong sizes is given back after the next run; not where launches were
            # captured, which go on using memory that the arena holds to be free.
            self._shrinks = isinstance(found, BackendMemoryError) and not self.captures
            raise found from error

    def placement(self) -> dict[str, dict[str, int]]:
        """By provider, how often each op ran there so far; notes no more from then on."""
        events = json.loads(Path(self._session.end_profiling()).read_text())
        found: dict[str, dict[str, int]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                said = event["args"]
                ops = found.setdefault(said["provider"], {})
                ops[said["op_name"]] = ops.get(said["op_name"], 0) + 1
        return found

    def close(self) -> None:
        """See `DeviceSession`."""
        self._bindings.clear()
        if self._notes is not None:
            shutil.rmtree(self._notes, ignore_errors=True)
        del self._session

    def _cuda_options(self, memory_limit: int) -> dict[str, str]:
        options = {
            "device_id": str(self._device.number),
            "user_compute_stream": str(self._device.stream),
            **({} if self._optimises else {"sdpa_kernel": ATTENTION_KERNELS}),
            # An fp32 graph is asked for to be exact.
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": "1" if self.captures else "0",
        }
        if memory_limit:
            options["gpu_mem_limit"] = str(memory_limit)
        return options

    def _run_options(self, graph_number: int, *, shrinks: bool = False) -> ort.RunOptions:
        options = ort.RunOptions()
        if self._device.kind != "cuda":
            return options
        # Whoever wants results waits for an event, not for the device.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self.captures:
            options.add_run_config_entry("gpu_graph_id", str(graph_number))
        if shrinks:
            options.add_run_config_entry(SHRINK, f"gpu:{self._device.number}")
        return options

    def _bind(
        self, binding: ort.IOBinding, inputs: Sequence[Bound], outputs: Sequence[Bound]
    ) -> None:
        for one in inputs:
            kind = "cpu" if one.is_on_host else self._device.kind
            number = 0 if one.is_on_host else self._device.number
            element = _element(one.tensor.dtype)
            shape, address = list(one.shape), one.address
            binding.bind_input(one.tensor.name, kind, number, element, shape, address)
        for one in outputs:
            kind, number = self._device.kind, self._device.number
            element = _element(one.tensor.dtype)
            binding.bind_output(
                one.tensor.name, kind, number, element, list(one.shape), one.address
            )


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


def _tensor(node: ort.NodeArg) -> Tensor:
    """An input or output as the engine knows it."""
    found = TENSOR_TYPE.fullmatch(node.type)
    kind = found[1] if found else node.type
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Tensor(node.name, NUMPY_NAMES.get(kind, kind), shape)


def _element(dtype: str) -> object:
    """A type as `IOBinding` wants it."""
    return ONNX_BFLOAT16 if dtype == BFLOAT16 else np.dtype(dtype).type


def _open(path: Path, provider: str, options: BackendOptions) -> ort.InferenceSession:
    """Make the session, CPU as the only fallback for nodes CUDA lacks."""
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.intra_op_threads
    session_options.inter_op_num_threads = 1
    # The arena of a session is shared by its workers: what one freed, another gets, whose core must first fetch the
    # cache lines from the other's. malloc keeps memory by thread: 8 to 34% faster in int8 (Zen 4, 2 workers).
    session_options.enable_cpu_mem_arena = provider != "cpu"
    # Plans are kept for each shape; ours hardly ever come twice.
    session_options.enable_mem_pattern = False
    # Between runs threads must sleep, not spin: an idle server uses no CPU.
    session_options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.spins else "0"
    )
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    # Failures come as exceptions; onnxruntime's own lines to stderr would quote values.
    session_options.log_severity_level = 4
    providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
    disabled: list[str] = list(CPU_DISABLED_FUSIONS)
    if provider == "cuda":
        find_libraries()
        providers.insert(
            0, (PROVIDERS["cuda"], {"device_id": str(options.device_id), "use_tf32": "0"})
        )
        disabled = []
    try:
        return ort.InferenceSession(
            str(path), session_options, providers=providers, disabled_optimizers=disabled
        )
    except Exception as error:
        raise FormatError(f"{path}: onnxruntime cannot open the graph ({error})") from error
