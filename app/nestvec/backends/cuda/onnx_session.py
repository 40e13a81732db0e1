"""A graph on a device by ONNX Runtime: bound to memory that its caller owns, launches captured where asked for."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from nestvec.backends.cuda.buffers import Device
from nestvec.backends.cuda.session import BFLOAT16, BoundTensor, Tensor
from nestvec.backends.ort import (
    NOT_STARTED,
    PROVIDERS,
    WITHOUT_CUDNN,
    backend_error,
    find_libraries,
    opening_error,
)
from nestvec.errors import BackendMemoryError, ProviderError

# Flash and CUTLASS attention and no others: any positive value drops the minimum lengths below which neither is taken,
# and the preference for cuDNN, whose graphs are compiled anew for each shape.
ATTENTION_KERNELS: Final = "3"
# MatMul and Add become a Gemm, which writes the bias first and reads it again; our graphs have no Gemm of their own.
DEVICE_DISABLED_FUSIONS: Final = ("MatMulAddFusion",)
ONNX_BFLOAT16: Final = 16
TENSOR_TYPE: Final = re.compile(r"tensor\((\w+)\)")
NUMPY_NAMES: Final = {"float": "float32"}
SHRINK: Final = "memory.enable_memory_arena_shrinkage"
# Some kernels of graphs that others made (products of batches with strides of no pattern) copy from page-locked memory
# that onnxruntime frees in runs only that wait for the device: every so many do.
RUNS_UNTIL_SYNC: Final = 50


class OnnxDeviceSession:
    """The `DeviceSession` of ONNX Runtime: a graph on a device, bound to memory that its caller owns.

    Args:
        path: The graph's file.
        device: The device to run on; one of kind "cpu" runs the same on the host, for tests.
        memory_limit_bytes: What its arena may take; 0 for no bound.
        captures: Whether runs are to be captured as CUDA graphs.
        profiles: Whether to record where nodes run, for `placement`.
        is_foreign: Whether others made the graph: onnxruntime rewrites it, which is good for such graphs, and it is not
            captured, as any op may do what a capture forbids.

    Raises:
        BackendLostError: The device is gone.
        FormatError: The graph cannot be opened, or cannot be captured.
        ModelMemoryError: There is no memory for it.
        ProviderError: The device did not start.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        *,
        memory_limit_bytes: int,
        captures: bool,
        profiles: bool = False,
        is_foreign: bool = False,
    ) -> None:
        self._is_foreign = is_foreign
        self._device, self.captures = device, captures and not is_foreign
        self._profile_dir = tempfile.mkdtemp(prefix="nestvec-profile-") if profiles else None
        is_cuda = device.kind == "cuda"
        options = ort.SessionOptions()
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if is_foreign else levels.ORT_ENABLE_BASIC
        )
        options.intra_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        if self._profile_dir is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(self._profile_dir) / "run")
        providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
        if is_cuda:
            find_libraries()
            providers.insert(0, (PROVIDERS["cuda"], self._cuda_options(memory_limit_bytes)))
        try:
            self._session = ort.InferenceSession(
                str(path),
                options,
                providers=providers,
                disabled_optimizers=[] if is_foreign else list(DEVICE_DISABLED_FUSIONS),
            )
        except Exception as error:
            raise opening_error(path, error) from error
        if is_cuda and self._session.get_providers()[0] != PROVIDERS["cuda"]:
            raise ProviderError(NOT_STARTED)
        self.inputs = {node.name: _tensor(node) for node in self._session.get_inputs()}
        self.outputs = {node.name: _tensor(node) for node in self._session.get_outputs()}
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._bindings: dict[int, ort.IOBinding] = {}
        self._options: dict[int | None, ort.RunOptions] = {None: self._run_options(-1)}
        self._shrinks = False
        self._runs = 0

    def run(
        self,
        inputs: Sequence[BoundTensor],
        outputs: Sequence[BoundTensor],
        graph_number: int | None = None,
    ) -> None:
        """Begin a run on the device's stream; with a number, capture it or launch what was captured under it.

        Raises:
            BackendError: onnxruntime failed; its subclasses say whether memory was short or the device is gone.
        """
        binding = self._bindings.get(graph_number or 0)
        if binding is None:
            binding = self._session.io_binding()
            if graph_number is not None:
                # A CUDA graph's memory never moves, so its binding is made once.
                self._bindings[graph_number] = binding
                self._options[graph_number] = self._run_options(graph_number)
            self._bind(binding, inputs, outputs)
        run_options = self._options[graph_number]
        self._runs += 1
        if self._is_foreign and self._runs % RUNS_UNTIL_SYNC == 0:
            run_options = self._run_options(-1, waits=True)
        if self._shrinks and graph_number is None:
            run_options, self._shrinks = self._run_options(-1, shrinks=True), False
        try:
            self._session.run_with_iobinding(binding, run_options)
        except Exception as error:
            failure = backend_error(error)
            # The arena frees its pieces of the wrong sizes after the next run; not where launches were captured, which
            # go on using memory that the arena takes to be free.
            self._shrinks = isinstance(failure, BackendMemoryError) and not self.captures
            raise failure from error

    def placement(self) -> dict[str, dict[str, int]]:
        """Return how often each op ran so far, by provider; ends the recording."""
        events = json.loads(Path(self._session.end_profiling()).read_text())
        placement: dict[str, dict[str, int]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                arguments = event["args"]
                ops = placement.setdefault(arguments["provider"], {})
                ops[arguments["op_name"]] = ops.get(arguments["op_name"], 0) + 1
        return placement

    def close(self) -> None:
        """Free the session and the files of its profile."""
        self._bindings.clear()
        if self._profile_dir is not None:
            shutil.rmtree(self._profile_dir, ignore_errors=True)
        del self._session

    def _cuda_options(self, memory_limit_bytes: int) -> dict[str, str]:
        options = {
            "device_id": str(self._device.number),
            "user_compute_stream": str(self._device.stream),
            **({} if self._is_foreign else {"sdpa_kernel": ATTENTION_KERNELS, **WITHOUT_CUDNN}),
            # Who asks for an fp32 graph wants exact results.
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": "1" if self.captures else "0",
        }
        if memory_limit_bytes:
            options["gpu_mem_limit"] = str(memory_limit_bytes)
        return options

    def _run_options(
        self, graph_number: int, *, shrinks: bool = False, waits: bool = False
    ) -> ort.RunOptions:
        options = ort.RunOptions()
        if self._device.kind != "cuda":
            return options
        # Whoever wants results waits for an event, not for the whole device.
        if not waits:
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self.captures:
            options.add_run_config_entry("gpu_graph_id", str(graph_number))
        if shrinks:
            options.add_run_config_entry(SHRINK, f"gpu:{self._device.number}")
        return options

    def _bind(
        self,
        binding: ort.IOBinding,
        inputs: Sequence[BoundTensor],
        outputs: Sequence[BoundTensor],
    ) -> None:
        for bound in inputs:
            kind = "cpu" if bound.is_on_host else self._device.kind
            number = 0 if bound.is_on_host else self._device.number
            element = _element_type(bound.tensor.dtype)
            shape, address = list(bound.shape), bound.address
            binding.bind_input(bound.tensor.name, kind, number, element, shape, address)
        for bound in outputs:
            kind, number = self._device.kind, self._device.number
            element = _element_type(bound.tensor.dtype)
            shape, address = list(bound.shape), bound.address
            binding.bind_output(bound.tensor.name, kind, number, element, shape, address)


def _tensor(node: ort.NodeArg) -> Tensor:
    """Return a graph's input or output with its type by numpy's name."""
    match = TENSOR_TYPE.fullmatch(node.type)
    kind = match[1] if match else node.type
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Tensor(node.name, NUMPY_NAMES.get(kind, kind), shape)


def _element_type(dtype: str) -> object:
    """Return a type as `IOBinding` wants it."""
    return ONNX_BFLOAT16 if dtype == BFLOAT16 else np.dtype(dtype).type
