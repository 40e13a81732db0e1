"""Runs ONNX graphs by ONNX Runtime, on the CPU or on CUDA."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nestvec.backends.graph_io import (
    EXIT,
    LAYERS,
    LAYERS_PROPERTY,
    SHORT_ROWS,
    TOKEN_OUTPUTS,
    attention_blocks,
    attention_kinds,
    feedable,
    feeds_of,
    packed_states,
    token_output,
)
from nestvec.backends.ort import (
    NOT_STARTED,
    PROVIDERS,
    available_provider,
    backend_error,
    find_libraries,
    opening_error,
)
from nestvec.backends.thread_placement import ThreadPlacement, begun_threads
from nestvec.engine.backend import LONG_TOKENS, BackendInfo, BackendOptions, CostModel
from nestvec.engine.core.prefix_backend import PICTURE_ROWS
from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import FormatError, ProviderError

log = logging.getLogger(__name__)

# The contrib SkipLayerNormalization is scalar on CPU, seven times slower than Add + LayerNormalization; the
# other fusions keep Gemm + Gelu from taking its bias (measured on onnxruntime 1.31).
CPU_DISABLED_FUSIONS: Final = (
    "SkipLayerNormFusion",
    "LayerNormFusion",
    "BiasGeluFusion",
    "GeluFusion",
)
PACKED_WEIGHTS: Final = "weights.bin"
# As long as threads inside a run mostly wait for each other; one that waits longer has no core to wait for, and had
# better leave its own to whoever has work.
SPIN_US: Final = 20


class OnnxBackend:
    """Runs a graph in one InferenceSession that all workers share.

    Args:
        path: The graph's file; external data lies beside it.
        layout: Which arrays the graph takes.
        options: Provider and threads.

    Raises:
        FormatError: The graph cannot be read, or its inputs and outputs are not what the layout says.
        ModelMemoryError: There is no memory for it.
        ProviderError: The requested provider is missing or did not start.
    """

    def __init__(self, path: Path, layout: Layout, options: BackendOptions) -> None:
        self._plain_attention_tokens = options.plain_attention_tokens
        requested = available_provider(options.provider)
        opening = partial(_open, path, requested, options)
        self._session, helpers = (
            begun_threads(opening, "inside") if options.spins else (opening(), ())
        )
        self._helpers = ThreadPlacement(helpers)
        active = self._session.get_providers()
        provider = "cuda" if active[0] == PROVIDERS["cuda"] else "cpu"
        if options.provider == "cuda" and provider != "cuda":
            raise ProviderError(NOT_STARTED)
        if requested != provider:
            log.warning("this onnxruntime has CUDA, but it did not start: serving on the CPU")
        inputs = self._session.get_inputs()
        self._inputs = feedable(path, layout, [node.name for node in inputs])
        # Graphs that others made may take the ids as int32; collation makes int64.
        self._narrow_inputs = {node.name for node in inputs if node.type == "tensor(int32)"}
        # What texts are fed where a graph reads pictures among tokens: none.
        self._no_rows = next(
            (
                np.zeros((0, each.shape[-1]), np.float32)
                for each in inputs
                if each.name == PICTURE_ROWS
            ),
            None,
        )
        outputs = {node.name: node for node in self._session.get_outputs()}
        self._output = token_output(path, list(outputs))
        width = outputs[self._output].shape[-1]
        if not isinstance(width, int):
            raise FormatError(f"{path}: the last axis of output '{self._output}' has no fixed size")
        metadata = self._session.get_modelmeta().custom_metadata_map
        kinds = attention_kinds(metadata)
        self.info = BackendInfo(
            layout,
            provider,
            hidden_size=width,
            gives_tokens=self._output in TOKEN_OUTPUTS,
            layers=int(metadata[LAYERS_PROPERTY]) if LAYERS in self._inputs else 0,
            gives_exits=f"{EXIT}1" in outputs,
            max_mixed_tokens=LONG_TOKENS if kinds and provider == "cpu" else None,
        )
        self._blocks = attention_blocks(metadata, self._inputs)
        self._cost = CostModel.of_graph(layout, width, kinds)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), int64, in token equivalents, as `CostModel` does."""
        return self._cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch in the calling thread.

        Raises:
            BackendError: onnxruntime failed.
        """
        feeds = feeds_of(batch, self._inputs, self._blocks)
        if self._no_rows is not None:
            feeds.setdefault(PICTURE_ROWS, self._no_rows)
        for name in self._narrow_inputs & feeds.keys():
            feeds[name] = feeds[name].astype(np.int32, copy=False)
        if SHORT_ROWS in self._inputs:
            feeds[SHORT_ROWS] = np.asarray(batch.lengths.max() <= self._plain_attention_tokens)
        if layers := self.info.layers:
            feeds[LAYERS] = np.asarray(batch.exits[-1] if batch.exits else layers, np.int64)
        names = [*(f"{EXIT}{layer}" for layer in batch.exits[:-1]), self._output]
        self._helpers.keep_apart()
        try:
            outputs: list[FloatArray] = self._session.run(names, feeds)
        except Exception as error:
            raise backend_error(error) from error
        *earlier, last = [output.astype(np.float32, copy=False) for output in outputs]
        return replace(packed_states(batch, self._output, last), earlier=tuple(earlier))

    def close(self) -> None:
        """Free the session; no `run` may follow."""
        del self._session


def packing_runtime() -> str:
    """Return what of the runtime decides how weights are packed."""
    return f"onnxruntime {ort.__version__}"


def save_packed(graph: Path, packed: Path) -> None:
    """Write a graph as the CPU's sessions run it, with its weights beside it: as they are, and packed.

    Sessions that open it map both, so that packed weights are in memory once for all of them, and not on the heap.

    Args:
        graph: The graph to copy.
        packed: The ONNX file to write; its folder gets a file of weights too.

    Raises:
        FormatError: onnxruntime cannot open the graph, or cannot write the copy.
    """
    session_options = _session_options("cpu", BackendOptions())
    session_options.optimized_model_filepath = str(packed)
    prefix = "session.optimized_model_external_initializers"
    for name, value in {
        f"{prefix}_file_name": PACKED_WEIGHTS,
        f"{prefix}_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        session_options.add_session_config_entry(name, value)
    _open_session(graph, "cpu", session_options)


def _open(path: Path, provider: str, options: BackendOptions) -> ort.InferenceSession:
    """Make the session; nodes that CUDA lacks run on the CPU."""
    return _open_session(path, provider, _session_options(provider, options), options.device_id)


def _session_options(provider: str, options: BackendOptions) -> ort.SessionOptions:
    """Return how a session runs."""
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.intra_op_threads
    session_options.inter_op_num_threads = 1
    # A session's arena is shared by its workers: what one freed another gets, whose core must first fetch the cache
    # lines from the other's. malloc keeps memory by thread: 8 to 34 % faster in int8 (Zen 4, 2 workers).
    session_options.enable_cpu_mem_arena = provider != "cpu"
    # Memory plans are kept for each shape, and our shapes hardly ever come twice.
    session_options.enable_mem_pattern = False
    # Between runs threads must sleep, not spin: an idle server must use no CPU.
    session_options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.spins else "0"
    )
    session_options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    session_options.add_session_config_entry("session.force_spinning_stop", "1")
    # Failures come as exceptions; the lines that onnxruntime writes to stderr would quote values.
    session_options.log_severity_level = 4
    if not options.packs_weights:
        session_options.add_session_config_entry("session.disable_prepacking", "1")
    return session_options


def _open_session(
    path: Path, provider: str, session_options: ort.SessionOptions, device_id: int = 0
) -> ort.InferenceSession:
    """Open a graph on a provider."""
    providers: list[str | tuple[str, dict[str, str]]] = [PROVIDERS["cpu"]]
    disabled: list[str] = list(CPU_DISABLED_FUSIONS)
    if provider == "cuda":
        find_libraries()
        providers.insert(0, (PROVIDERS["cuda"], {"device_id": str(device_id), "use_tf32": "0"}))
        disabled = []
    try:
        return ort.InferenceSession(
            str(path), session_options, providers=providers, disabled_optimizers=disabled
        )
    except Exception as error:
        raise opening_error(path, error) from error
