"""The families that the exporter knows, and the functions that write their graphs for CPU and other programs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.albert import ALBERT
from nestvec.export.families.bert import BERT, ELECTRA, ERNIE
from nestvec.export.families.deberta import DEBERTA
from nestvec.export.families.decoders import (
    EUROBERT,
    LLAMA,
    LLAMA_BIDIRECTIONAL,
    OLMO2,
    PHI3,
    PPLX_QWEN3,
    QWEN2,
    QWEN3,
)
from nestvec.export.families.distilbert import DISTILBERT
from nestvec.export.families.gemma import GEMMA, GEMMA2, GEMMA3
from nestvec.export.families.gte import GTE
from nestvec.export.families.jina_bert import JINA_BERT
from nestvec.export.families.jina_v3 import JINA_V3
from nestvec.export.families.modernbert import MODERNBERT
from nestvec.export.families.mpnet import MPNET
from nestvec.export.families.nomic import NOMIC
from nestvec.export.families.nv_embed import NV_EMBED
from nestvec.export.families.pre_layer_norm import BLOOM, M2M_100
from nestvec.export.families.roberta import ROBERTA
from nestvec.export.families.static import STATIC
from nestvec.export.families.t5 import MT5_ENCODER, T5_ENCODER
from nestvec.export.graph.builder import WEIGHTS_FILE, GraphBuilder
from nestvec.export.graph.inputs import PackedInputs, packed_inputs, padded_inputs, unpacked
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Arithmetic, Floating, RecordingFloating
from nestvec.export.layers.attention import AttentionOps
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.graph_heads import GraphHead
from nestvec.export.two_towers.jina_text import JINA_CLIP_TEXT
from nestvec.export.two_towers.text_tower import CLIP_TEXT, SIGLIP_TEXT
from nestvec.export.vision_language.colpali import COLPALI_DECODER
from nestvec.export.vision_language.decoder import COLQWEN2, QWEN3_VL
from nestvec.export.vision_language.modernvbert import COL_MODERNVBERT


class Architecture(Protocol):
    """A family that can be exported."""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs from config.json.

        Raises:
            FormatError: A field is missing or has a value that is not supported.
        """

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """


STATIC_TYPE: Final = "static"
# Families by the `model_type` of config.json.
ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "albert": ALBERT,
    "bert": BERT,
    "bidirectional_pplx_qwen3": PPLX_QWEN3,
    "bloom": BLOOM,
    "camembert": ROBERTA,
    "clip": CLIP_TEXT,
    "colmodernvbert": COL_MODERNVBERT,
    "colpali": COLPALI_DECODER,
    "colqwen2": COLQWEN2,
    "deberta-v2": DEBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "ernie": ERNIE,
    "eurobert": EUROBERT,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "gte": GTE,
    "jina_bert": JINA_BERT,
    "jina_clip": JINA_CLIP_TEXT,
    "jina_embeddings_v3": JINA_V3,
    "llama": LLAMA,
    "llama_bidirec": LLAMA_BIDIRECTIONAL,
    "m2m_100": M2M_100,
    "mistral": LLAMA,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "mt5": MT5_ENCODER,
    "nomic_bert": NOMIC,
    "nvembed": NV_EMBED,
    "olmo2": OLMO2,
    "phi3": PHI3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_vl": QWEN3_VL,
    "roberta": ROBERTA,
    "siglip": SIGLIP_TEXT,
    "siglip2": SIGLIP_TEXT,
    STATIC_TYPE: STATIC,
    "t5": T5_ENCODER,
    "xlm-roberta": ROBERTA,
}

# Families that rotate queries and keys by position.
ROTARY_TYPES: Final = frozenset(
    {
        *("bidirectional_pplx_qwen3", "colmodernvbert", "colpali", "colqwen2", "eurobert", "gemma"),
        *("gemma2", "gemma3_text", "gte", "jina_embeddings_v3", "llama", "llama_bidirec"),
        *("mistral", "modernbert", "nomic_bert"),
        *("nvembed", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_vl"),
    }
)

# A `model_type` on the Hub that says too little or something else, a field that tells what is meant, its value, and the
# key of `ARCHITECTURES`; the first row that fits holds.
_HUB_TYPES: Final = (
    ("bert", "position_embedding_type", "alibi", "jina_bert"),
    ("xlm-roberta", "position_embedding_type", "rotary", "jina_embeddings_v3"),
    ("new", "model_type", "new", "gte"),
    # The model of pictures and texts that is in it; the class is that of transformers, or the authors' own.
    ("modernvbert", "architectures", ["ColModernVBertForRetrieval"], "colmodernvbert"),
    ("modernvbert", "architectures", ["ColModernVBert"], "colmodernvbert"),
)

# Key of a graph's metadata for its number of layers, and the prefix of the outputs that give earlier layers' states.
LAYERS: Final = "nestvec.layers"
EXIT: Final = "exit_"
# Output of a graph to calibrate by; see `export_reference_graphs`.
RANGES: Final = "ranges"

# Part of every fingerprint: raise it when an exported graph's vectors may change.
GRAPH_VERSION: Final = 4


def architecture_of(config: Mapping[str, Any]) -> str:
    """Key of `ARCHITECTURES` for a config.json, or its `model_type` where no family fits."""
    model_type = str(config.get("model_type"))
    for hub_type, name, value, key in _HUB_TYPES:
        if model_type == hub_type and config.get(name) == value:
            return key
    return model_type


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a packed graph is made.

    Attributes:
        arithmetic: How linear layers compute.
        attention: Which operators compute attention.
        halves_weights: Store weights as float16; the graph still computes in float32.
        rounds_table: Store rows of the table of tokens as 8-bit integers, each with a scale.
        head: What follows the encoder; None for token states as they are.
        takes_token_types: Whether the graph is told which tokens are of a pair's second text.
        takes_layer_count: Whether the graph is told how many layers to run; all exits then share its weights.
    """

    arithmetic: Arithmetic = field(default_factory=Floating)
    attention: AttentionOps = AttentionOps.BY_LENGTH
    halves_weights: bool = False
    rounds_table: bool = False
    head: GraphHead | None = None
    takes_token_types: bool = False
    takes_layer_count: bool = False


def export_graph(
    folder: Path,
    config: Mapping[str, Any],
    path: Path,
    options: ExportOptions | None = None,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write a model's packed graph: ids [T] to token states `hidden` [T, H].

    Args:
        folder: Holds the safetensors.
        config: Content of its config.json; `architecture_of` it must be a key of `ARCHITECTURES`.
        path: Where the graph goes; its weights go beside it.
        options: How it is made; None for float32 and ONNX Runtime.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    options = options or ExportOptions()
    graph = GraphBuilder(
        architecture_of(config),
        halves_weights=options.halves_weights,
        weights_path=path.parent / WEIGHTS_FILE,
    )
    inputs = packed_inputs(
        graph,
        takes_equal_lengths=options.attention is not AttentionOps.PORTABLE,
        takes_short_rows=options.attention is AttentionOps.BY_LENGTH,
        takes_token_types=options.takes_token_types,
        takes_layer_count=options.takes_layer_count,
    )
    with Weights(folder, on_tensor=on_tensor) as weights:
        context = BuildContext(graph, weights, inputs, options.arithmetic, options.rounds_table)
        encoder = ARCHITECTURES[architecture_of(config)].build(config, context)
        value, width = encoder.states[-1], encoder.hidden_size
        if options.head is not None:
            value, width = options.head(context, encoder)
    if options.takes_layer_count and encoder.layers > 1:
        graph.metadata[LAYERS] = str(encoder.layers)
        if options.head is None and encoder.finalize is None:
            # One run gives several exits: states that are computed anyway cost nothing to return.
            for number, state in enumerate(encoder.states[1:-1], start=1):
                graph.output(state, f"{EXIT}{number}", ("T", width))
    graph.output(value, "hidden", ("T", width))
    graph.save(path)


def export_padded_graph(folder: Path, config: Mapping[str, Any], path: Path) -> None:
    """Write a graph for other programs, standard ONNX, that packs and unpacks by itself.

    It takes `input_ids`, `attention_mask`, `token_type_ids`, each [B, S], int64, and gives `last_hidden_state`
    [B, S, H], zeros at padding.

    Args:
        folder: Holds the safetensors.
        config: Content of its config.json; `architecture_of` it must be a key of `ARCHITECTURES`.
        path: Where the graph goes; its weights go beside it.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder(architecture_of(config))
    inputs = padded_inputs(graph)
    encoder = _build(graph, folder, config, inputs, Floating())
    states = unpacked(graph, encoder.states[-1], inputs, encoder.hidden_size)
    graph.output(states, "last_hidden_state", ("B", "S", encoder.hidden_size))
    graph.save(path, keeps_inputs=True)


def export_reference_graphs(
    folder: Path,
    config: Mapping[str, Any],
    path: Path,
    calibration: Path,
    options: ExportOptions,
    on_tensor: Callable[[int], None] | None = None,
) -> dict[str, slice]:
    """Write a float graph as `export_graph` does, and one to calibrate by, over the same file of weights.

    The second gives `ranges` [3, C]: least, greatest and mean value of each channel of the inputs of all linear layers,
    side by side. It reduces them itself: all of them are a megabyte a token in a model of 28 layers.

    Args:
        folder: Holds the safetensors.
        config: Content of its config.json; `architecture_of` it must be a key of `ARCHITECTURES`.
        path: Where the float graph goes; its weights go beside it.
        calibration: Where the other goes, in the same folder.
        options: The head, and whether it takes token types; the graphs are float32 and always run all layers.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Returns:
        The channels in C of each input, by the name of the first layer that takes it.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    weights_path = path.parent / WEIGHTS_FILE
    graph = GraphBuilder(architecture_of(config), weights_path=weights_path)
    recording = RecordingFloating()
    inputs = packed_inputs(
        graph,
        takes_equal_lengths=True,
        takes_short_rows=False,
        takes_token_types=options.takes_token_types,
    )
    with Weights(folder, on_tensor=on_tensor) as weights:
        context = BuildContext(graph, weights, inputs, recording)
        encoder = ARCHITECTURES[architecture_of(config)].build(config, context)
        recorded = dict(recording.inputs)
        value, width = encoder.states[-1], encoder.hidden_size
        if options.head is not None:
            value, width = options.head(context, encoder)
    graph.output(value, "hidden", ("T", width))
    stops = list(accumulate(channels for _, channels in recorded.values()))
    values = [layer_input for layer_input, _ in recorded.values()]
    graph.output(_ranges(graph, values), RANGES, (3, stops[-1]))
    graph.save_graphs({path: ["hidden"], calibration: [RANGES]})
    return {
        name: slice(stop - channels, stop)
        for (name, (_, channels)), stop in zip(recorded.items(), stops, strict=True)
    }


def _ranges(graph: GraphBuilder, values: Sequence[str]) -> str:
    """Add least, greatest and mean value over the tokens of each channel, [3, C], of values [T, c]."""
    tokens = graph.weight("tokens_axis", np.array([0], np.int64))
    rows = [
        graph.op("Concat", *(graph.op(kind, value, tokens, keepdims=1) for value in values), axis=1)
        for kind in ("ReduceMin", "ReduceMax", "ReduceMean")
    ]
    return graph.op("Concat", *rows, axis=0)


def _build(
    graph: GraphBuilder,
    folder: Path,
    config: Mapping[str, Any],
    inputs: PackedInputs,
    arithmetic: Arithmetic,
) -> Encoder:
    with Weights(folder) as weights:
        family = ARCHITECTURES[architecture_of(config)]
        return family.build(config, BuildContext(graph, weights, inputs, arithmetic))
