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
from nestvec.backends.cuda.session import BFLOAT16, Bound, Tensor
from nestvec.backends.ort import (
    NOT_STARTED,
    PROVIDERS,
    backend_error,
    find_libraries,
)
from nestvec.errors import (
    BackendMemoryError,
    FormatError,
    ProviderError,
)

# Flash and CUTLASS attention, no others: any positive value drops the least lengths below which neither is taken, and
# the preference for cuDNN, whose graphs are compiled anew for each shape.
ATTENTION_KERNELS: Final = "3"


# Gemm writes a bias first and reads it again; our graphs have none, and this would make some.
DEVICE_DISABLED_FUSIONS: Final = ("MatMulAddFusion",)


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


def _tensor(node: ort.NodeArg) -> Tensor:
    """An input or output as the engine knows it."""
    found = TENSOR_TYPE.fullmatch(node.type)
    kind = found[1] if found else node.type
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Tensor(node.name, NUMPY_NAMES.get(kind, kind), shape)


def _element(dtype: str) -> object:
    """A type as `IOBinding` wants it."""
    return ONNX_BFLOAT16 if dtype == BFLOAT16 else np.dtype(dtype).type
