"""jina-clip's tower of texts: an encoder of another family, under names of its own, with an adapter in its weights.

Source: `hf_model.py` of jinaai/jina-clip-implementation; `convert_v2_weights.py` of
jinaai/jina-bert-flash-implementation for the names of v1; `modeling_lora.py` of jinaai/xlm-roberta-flash-implementation
for the adapters of v2.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.jina_bert import JINA_BERT
from nestvec.export.families.jina_v3 import JINA_V3
from nestvec.export.families.post_norm import PostNormEncoder
from nestvec.export.families.rotary_encoder import RotaryEncoder
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import PARAMETRIZED, Weights
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.jina_clip import JinaAdapter, JinaText, read_jina_text

PREFIX: Final = "text_model.transformer."
ROBERTA: Final = "roberta."  # around the encoder, where it has adapters
WORDS: Final = "embeddings.word_embeddings.weight"
# Of v1: what BERT's names are called there.
NAMES: Final = (
    (re.compile(r"^embeddings\.LayerNorm\."), "emb_ln."),
    (re.compile(r"^encoder\.layer\."), "encoder.layers."),
    (re.compile(r"\.attention\.output\.dense\."), ".mixer.out_proj."),
    (re.compile(r"\.attention\.output\.LayerNorm\."), ".norm1."),
    (re.compile(r"\.mlp\.layernorm\."), ".norm2."),
)
PROJECTION: Final = re.compile(r"\.attention\.self\.(query|key|value)\.")
TABLE: Final = re.compile(r"_embeddings\.parametrizations\.")
PARTS: Final = ("query", "key", "value")  # one below the other in `mixer.Wqkv`


class JinaTextWeights(Weights):
    """The tensors of a tower of texts by the names of the family that it is made like; reads them from a checkpoint.

    Args:
        weights: The whole checkpoint, which somebody else closes.
        tower: The tower.
    """

    def __init__(self, weights: Weights, tower: JinaText) -> None:
        self._weights = weights
        self._tower = tower
        self._all_names = frozenset(weights.names())
        has_adapters = f"{PREFIX}{ROBERTA}{WORDS}" in weights
        self._prefix = f"{PREFIX}{ROBERTA}" if has_adapters else PREFIX

    @override
    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return self._stored(name)[0] in self._weights

    @override
    def names(self) -> tuple[str, ...]:
        """Names of all tensors of the whole checkpoint, as the files spell them."""
        return self._weights.names()

    @override
    def get(self, name: str, shape: tuple[int, ...]) -> Float32Array:
        """Read a tensor as float32, with the adapter's product where it has one.

        Raises:
            FormatError: The tensor is missing, has another shape, or holds values that are not finite.
        """
        stored, part = self._stored(name)
        if part is not None:
            whole = (len(PARTS) * shape[0], *shape[1:])
            return np.split(self._weights.get(stored, whole), len(PARTS))[part]
        original = stored.removesuffix(".weight") + PARAMETRIZED
        if original not in self._all_names:
            return self._weights.get(stored, shape)
        tensor = self._weights.get(original, shape)
        adapter = self._tower.adapter
        return tensor if adapter is None else tensor + self._product(original, shape, adapter)

    def _stored(self, name: str) -> tuple[str, int | None]:
        """The name of a tensor in the checkpoint, and which third of it is meant; None for all."""
        part = None
        if self._tower.is_bert:
            found = PROJECTION.search(name)
            if found is not None:
                part = PARTS.index(found[1])
                name = PROJECTION.sub(".mixer.Wqkv.", name)
            for pattern, theirs in NAMES:
                name = pattern.sub(theirs, name)
        return self._prefix + name, part

    def _product(self, original: str, shape: tuple[int, ...], adapter: JinaAdapter) -> Float32Array:
        """Compute what the adapter adds to a matrix: B A of a layer, A B of a table."""
        stem = f"{original.removesuffix('original')}0.lora_"
        tasks, rank, (rows, columns) = adapter.tasks, adapter.rank, shape
        if TABLE.search(original):
            first = self._weights.get(f"{stem}A", (tasks, rows, rank))
            second = self._weights.get(f"{stem}B", (tasks, rank, columns))
        else:
            second = self._weights.get(f"{stem}A", (tasks, rank, columns))
            first = self._weights.get(f"{stem}B", (tasks, rows, rank))
        scaling = np.float32(adapter.scaling)
        product: Float32Array = scaling * (first[adapter.task] @ second[adapter.task])
        return product


class JinaClipText:
    """The tower of texts as a family of its own, whose graph is that of the family that it is made like."""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs from a whole config.json.

        Raises:
            FormatError: A field is of the wrong type, or has a value that is not supported.
        """
        tower = read_jina_text(config)
        return self._family(tower).dimensions(self._fields(tower))

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        tower = read_jina_text(config)
        inner = replace(context, weights=JinaTextWeights(context.weights, tower))
        return self._family(tower).build(self._fields(tower), inner)

    @staticmethod
    def _family(tower: JinaText) -> PostNormEncoder | RotaryEncoder:
        return JINA_BERT if tower.is_bert else JINA_V3

    @staticmethod
    def _fields(tower: JinaText) -> Mapping[str, Any]:
        """Return the fields by the names of the family's own config.json."""
        if not tower.is_bert:
            return tower.config
        gates = {"gelu": "geglu", "relu": "reglu"}
        act = tower.config["hidden_act"]
        if not isinstance(act, str) or act not in gates:
            raise FormatError("config.json: text_config 'hidden_act' must be gelu or relu")
        return {
            **tower.config,
            "position_embedding_type": "alibi",
            "feed_forward_type": gates[act],
        }


JINA_CLIP_TEXT: Final = JinaClipText()
