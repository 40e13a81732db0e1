"""Runs graphs in bfloat16 by OpenVINO, on CPUs that multiply it; the one file that imports openvino."""

import threading
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.graph_io import (
    KINDS_PROPERTY,
    KNOWN_INPUTS,
    POOLED_OUTPUTS,
    TOKEN_OUTPUTS,
    WINDOW_PROPERTY,
    attention_blocks,
    attention_kinds,
    feedable,
    feeds_of,
    packed_states,
    token_output,
)
from nestvec.engine.backend import LONG_TOKENS, BackendInfo, BackendOptions, CostModel
from nestvec.engine.types import Batch, Layout, RawOutput
from nestvec.errors import BackendError, FormatError, ProviderError
from nestvec.system.extras import how_to_install

CAPABILITY: Final = "BF16"
# Under which OpenVINO keeps the metadata of the file that it read.
METADATA: Final = "framework"
# openvino makes its table of dtypes when it is asked for one first, and imports from Python meanwhile: two threads that
# both ask first wait for one another for ever. So it is asked once, by one thread, before any runs.
FIRST_USE: Final = threading.Lock()


class OpenVinoBackend:
    """Runs one compiled model; each thread that calls `run` has an inference request of its own.

    Args:
        path: A graph of standard ONNX ops.
        layout: Which arrays the graph takes.
        options: `parallel_runs` becomes the number of streams.

    Raises:
        FormatError: The graph cannot be read, or its inputs and outputs are not what the layout says.
        ProviderError: openvino is not installed, or this CPU has no bfloat16.
    """

    def __init__(self, path: Path, layout: Layout, options: BackendOptions) -> None:
        try:
            # Imported here, as it is an optional extra and its import starts a thread.
            import openvino
        except ImportError as error:
            raise ProviderError(
                f"precision bf16 needs OpenVINO: {how_to_install('openvino')}"
            ) from error
        with FIRST_USE:
            openvino.Type.i64.to_dtype()
        core = openvino.Core()
        if CAPABILITY not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ProviderError(
                "precision bf16 needs a CPU with AVX512_BF16 or AMX, and this one has neither: "
                "use precision int8 or fp32"
            )
        model = _read(core, path)
        metadata = _metadata(model)
        kinds = attention_kinds(metadata)
        self._compiled = _compile(core, model, path, options)
        self._inputs = feedable(path, layout, [_name(port) for port in self._compiled.inputs])
        shapes = {_name(port): port.get_partial_shape() for port in self._compiled.outputs}
        self._output = token_output(path, list(shapes))
        width = shapes[self._output][-1]
        if width.is_dynamic:
            raise FormatError(f"{path}: the last axis of output '{self._output}' has no fixed size")
        # Its graphs have no branches, hence no layers to choose from.
        self.info = BackendInfo(
            layout,
            "cpu",
            hidden_size=width.get_length(),
            gives_tokens=self._output in TOKEN_OUTPUTS,
            max_mixed_tokens=LONG_TOKENS if kinds else None,
        )
        self._blocks = attention_blocks(metadata, self._inputs)
        self._cost = CostModel.of_graph(layout, self.info.hidden_size, kinds)
        self._local = threading.local()

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), int64, in token equivalents, as `CostModel` does."""
        return self._cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch in the calling thread.

        Raises:
            BackendError: OpenVINO failed.
        """
        feeds = feeds_of(batch, self._inputs, self._blocks)
        try:
            output = self._request().infer(feeds, share_inputs=True)[self._output]
        except Exception as error:
            # As in the ONNX Runtime backend, no text of the library may reach a caller.
            raise BackendError("OpenVINO failed on this batch") from error
        return packed_states(batch, self._output, np.asarray(output, np.float32))

    def close(self) -> None:
        """Free the model; no `run` may follow."""
        del self._compiled
        self._local = threading.local()

    def _request(self) -> Any:  # noqa: ANN401 - openvino has no types to import when it is absent
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request


def _name(port: Any) -> str:  # noqa: ANN401 - see above
    """Return the graph's own name of an input or output: optimization adds names of inner values."""
    known = (*chain(*KNOWN_INPUTS.values()), *TOKEN_OUTPUTS, *POOLED_OUTPUTS)
    names: set[str] = port.get_names()
    return next((name for name in known if name in names), min(names))


def _read(core: Any, path: Path) -> Any:  # noqa: ANN401 - see above
    try:
        return core.read_model(path)
    except Exception as error:
        raise FormatError(f"{path}: OpenVINO cannot read the graph ({error})") from error


def _metadata(model: Any) -> dict[str, str]:  # noqa: ANN401 - see above
    """Return the graph's own metadata that decides what it is fed and what batches cost."""
    names = [
        name for name in (WINDOW_PROPERTY, KINDS_PROPERTY) if model.has_rt_info([METADATA, name])
    ]
    return {name: model.get_rt_info([METADATA, name]).astype(str) for name in names}


def _compile(core: Any, model: Any, path: Path, options: BackendOptions) -> Any:  # noqa: ANN401 - see above
    """Compile for as many runs at once as there are workers, each with its own threads."""
    properties = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "NUM_STREAMS": options.parallel_runs,
        "INFERENCE_NUM_THREADS": options.parallel_runs * options.intra_op_threads,
        # Pinned threads would share cores with the pinned threads of other processes.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return core.compile_model(model, "CPU", properties)
    except Exception as error:
        raise FormatError(f"{path}: OpenVINO cannot open the graph ({error})") from error
