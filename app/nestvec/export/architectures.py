"""Which families the exporter knows: `model_type` of config.json to the function that builds its graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Protocol

from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.bert import BERT, ELECTRA
from nestvec.export.families.deberta import DEBERTA
from nestvec.export.families.decoders import EUROBERT, LLAMA, QWEN2, QWEN3
from nestvec.export.families.distilbert import DISTILBERT
from nestvec.export.families.gemma import GEMMA3
from nestvec.export.families.gte import GTE
from nestvec.export.families.jina_bert import JINA_BERT
from nestvec.export.families.jina_v3 import JINA_V3
from nestvec.export.families.modernbert import MODERNBERT
from nestvec.export.families.mpnet import MPNET
from nestvec.export.families.nomic import NOMIC
from nestvec.export.families.nv_embed import NV_EMBED
from nestvec.export.families.roberta import ROBERTA
from nestvec.export.families.static import STATIC
from nestvec.export.families.t5 import T5_ENCODER
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs, packed_inputs, padded_inputs, unpacked
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Arithmetic, Floating, Observed
from nestvec.export.layers.attention import AttentionRoutes
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.heads import Tail


class Architecture(Protocol):
    """A family that can be exported."""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs, from config.json.

        Raises:
            FormatError: A field is missing or asks for what is not supported.
        """

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer.

        Raises:
            FormatError: Configuration and weights do not make one.
        """


STATIC_TYPE: Final = "static"
ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "bert": BERT,
    "camembert": ROBERTA,
    "deberta-v2": DEBERTA,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "eurobert": EUROBERT,
    "gemma3_text": GEMMA3,
    "gte": GTE,
    "jina_bert": JINA_BERT,
    "jina_embeddings_v3": JINA_V3,
    "llama": LLAMA,
    "mistral": LLAMA,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "nomic_bert": NOMIC,
    "nvembed": NV_EMBED,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "roberta": ROBERTA,
    STATIC_TYPE: STATIC,
    "t5": T5_ENCODER,
    "xlm-roberta": ROBERTA,
}

# Names on the Hub that say too little or something else, told apart by a field; the first that holds.
_HUB_TYPES: Final = (
    ("bert", "position_embedding_type", "alibi", "jina_bert"),
    ("xlm-roberta", "position_embedding_type", "rotary", "jina_embeddings_v3"),
    ("new", "model_type", "new", "gte"),
)

# What a graph says of itself, and what its exits' states are called.
LAYERS: Final = "nestvec.layers"
EXIT: Final = "exit_"

# Part of every fingerprint: raise it when an exported graph's vectors may change.
GRAPH_VERSION: Final = 4


def architecture_of(config: Mapping[str, Any]) -> str:
    """Key of `ARCHITECTURES` for a config.json, or its `model_type` where there is none."""
    said = str(config.get("model_type"))
    for kind, name, value, meant in _HUB_TYPES:
        if said == kind and config.get(name) == value:
            return meant
    return said


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a graph of an architecture.

    Attributes:
        arithmetic: How linear layers compute.
        routes: The ways through attention.
        halves_weights: Store weights as float16, compute in float32.
        tail: The graph's end; token states as they are by default.
        asks_types: Whether it is told the tokens of a pair's second text.
        asks_layers: Whether it is told how many layers to run; its exits then share the weights.
    """

    arithmetic: Arithmetic = field(default_factory=Floating)
    routes: AttentionRoutes = AttentionRoutes.BY_LENGTH
    halves_weights: bool = False
    tail: Tail | None = None
    asks_types: bool = False
    asks_layers: bool = False


def export_graph(
    folder: Path, config: Mapping[str, Any], path: Path, recipe: Recipe | None = None
) -> None:
    """Write a folder's packed graph: ids (T,) to token states `hidden` (T, H).

    Args:
        folder: Holds the safetensors.
        config: Its config.json; `architecture_of` it must be in `ARCHITECTURES`.
        path: Where the graph goes; its weights go beside it.
        recipe: How; float32 for onnxruntime by default.

    Raises:
        FormatError: Configuration and weights do not fit.
        OSError: The disk is full or read-only.
    """
    chosen = recipe or Recipe()
    graph = GraphBuilder(architecture_of(config), halves_weights=chosen.halves_weights)
    inputs = packed_inputs(
        graph,
        asks_equal=chosen.routes is not AttentionRoutes.PORTABLE,
        asks_short=chosen.routes is AttentionRoutes.BY_LENGTH,
        asks_types=chosen.asks_types,
        asks_layers=chosen.asks_layers,
    )
    with Weights(folder) as weights:
        site = Site(graph, weights, inputs, chosen.arithmetic)
        encoder = ARCHITECTURES[architecture_of(config)].build(config, site)
        value, width = encoder.states[-1], encoder.hidden_size
        if chosen.tail is not None:
            value, width = chosen.tail(site, encoder)
    if chosen.asks_layers and encoder.layers > 1:
        graph.metadata[LAYERS] = str(encoder.layers)
        if chosen.tail is None and encoder.end is None:
            # Several exits of one run: states that are there anyway cost nothing to give out.
            for number, state in enumerate(encoder.states[1:-1], start=1):
                graph.output(state, f"{EXIT}{number}", ("T", width))
    graph.output(value, "hidden", ("T", width))
    graph.save(path)


def export_padded_graph(folder: Path, config: Mapping[str, Any], path: Path) -> None:
    """Write a graph for other programs, standard ONNX, that packs and unpacks by itself.

    It takes `input_ids`, `attention_mask`, `token_type_ids`, each (B, S), int64, and gives `last_hidden_state`
    (B, S, H), zeros at padding.

    Raises:
        FormatError: Configuration and weights do not fit.
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder(architecture_of(config))
    inputs = padded_inputs(graph)
    encoder = _build(graph, folder, config, inputs, Floating())
    states = unpacked(graph, encoder.states[-1], inputs, encoder.hidden_size)
    graph.output(states, "last_hidden_state", ("B", "S", encoder.hidden_size))
    graph.save(path, keeps_inputs=True)


def export_calibration_graph(
    folder: Path, config: Mapping[str, Any], path: Path
) -> dict[str, slice]:
    """Write a graph whose `hidden` (T, C) are the inputs of all linear layers, side by side.

    Returns:
        Name of the first layer that takes an input → its channels in C.

    Raises:
        FormatError: Configuration and weights do not fit.
        OSError: The disk is full or read-only.
    """
    graph, observed = GraphBuilder("calibration"), Observed()
    inputs = packed_inputs(graph, asks_equal=True, asks_short=False)
    _build(graph, folder, config, inputs, observed)
    values = [value for value, _ in observed.inputs.values()]
    ends = list(accumulate(width for _, width in observed.inputs.values()))
    graph.output(graph.op("Concat", *values, axis=-1), "hidden", ("T", ends[-1]))
    graph.save(path)
    return {
        name: slice(end - width, end)
        for (name, (_, width)), end in zip(observed.inputs.items(), ends, strict=True)
    }


def _build(
    graph: GraphBuilder,
    folder: Path,
    config: Mapping[str, Any],
    inputs: PackedInputs,
    arithmetic: Arithmetic,
) -> Encoder:
    with Weights(folder) as weights:
        family = ARCHITECTURES[architecture_of(config)]
        return family.build(config, Site(graph, weights, inputs, arithmetic))
