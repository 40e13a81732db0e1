"""Runs graphs in bfloat16 by OpenVINO, on CPUs that multiply it; the one file that imports openvino."""

import math
import threading
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.graph_io import (
    KNOWN_INPUTS,
    POOLED_OUTPUTS,
    TOKEN_OUTPUTS,
    feedable,
    packed_states,
    token_output,
)
from nestvec.engine.backend import BackendOptions, CostModel
from nestvec.engine.types import Batch, Layout, RawOutput
from nestvec.errors import BackendError, FormatError, ProviderError

CAPABILITY: Final = "BF16"


class OpenVinoBackend:
    """One compiled model; each thread that runs it has a request of its own.

    Args:
        path: A graph of standard ONNX ops.
        layout: Which inputs it takes.
        options: `parallel_runs` becomes the number of streams.

    Raises:
        FormatError: The graph cannot be read, or its inputs and outputs are not what the layout says.
        ProviderError: openvino is not installed, or this CPU has no bfloat16.
    """

    provider = "cpu"
    layers = 0  # its graphs have no branches
    gives_exits = False
    pooling = ""
    max_cost = math.inf

    def __init__(self, path: Path, layout: Layout, options: BackendOptions) -> None:
        try:
            # Imported here: it is an optional extra, and its import starts a thread.
            import openvino
        except ImportError as error:
            raise ProviderError(
                "precision bf16 needs OpenVINO: install nestvec[openvino]"
            ) from error
        core = openvino.Core()
        if CAPABILITY not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ProviderError(
                "precision bf16 needs a CPU with AVX512_BF16 or AMX, and this one has neither: "
                "use precision int8 or fp32"
            )
        self.layout = layout
        self._compiled = _compile(core, path, options)
        self._inputs = feedable(path, layout, [_name(port) for port in self._compiled.inputs])
        shapes = {_name(port): port.get_partial_shape() for port in self._compiled.outputs}
        self._output = token_output(path, list(shapes))
        width = shapes[self._output][-1]
        if width.is_dynamic:
            raise FormatError(f"{path}: the last axis of output '{self._output}' has no fixed size")
        self.hidden_size: int = width.get_length()
        self.gives_tokens = self._output in TOKEN_OUTPUTS
        self._cost = CostModel.of_bert(layout, self.hidden_size)
        self._local = threading.local()

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch in token equivalents; see `CostModel`."""
        return self._cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: OpenVINO failed.
        """
        feeds = {name: batch.arrays[name] for name in self._inputs if name in batch.arrays}
        try:
            found = self._request().infer(feeds, share_inputs=True)[self._output]
        except Exception as error:
            # As in the onnxruntime backend: no text of the library may reach a caller.
            raise BackendError("OpenVINO failed on this batch") from error
        return packed_states(batch, self._output, np.asarray(found, np.float32))

    def close(self) -> None:
        """Free the model."""
        del self._compiled
        self._local = threading.local()

    def _request(self) -> Any:  # noqa: ANN401 - openvino has no types to import when it is absent
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request


def _name(port: Any) -> str:  # noqa: ANN401 - see above
    """The graph's own name of an input or output: optimisation adds names of inner values."""
    known = (*chain(*KNOWN_INPUTS.values()), *TOKEN_OUTPUTS, *POOLED_OUTPUTS)
    names: set[str] = port.get_names()
    return next((name for name in known if name in names), min(names))


def _compile(core: Any, path: Path, options: BackendOptions) -> Any:  # noqa: ANN401 - see above
    """Compile for as many runs at once as there are workers, a thread each."""
    wanted = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": options.parallel_runs,
        "INFERENCE_NUM_THREADS": options.parallel_runs * options.intra_op_threads,
        # Pinned threads would share cores with other processes' pinned ones.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return core.compile_model(core.read_model(path), "CPU", wanted)
    except Exception as error:
        raise FormatError(f"{path}: OpenVINO cannot open the graph ({error})") from error
