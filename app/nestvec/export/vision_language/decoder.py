"""The decoders of Qwen3-VL and Qwen2-VL, whose tokens may be those of pictures, which have places in rows and columns.

Rows of the tower stand for the tokens of pictures, and more of them are added behind the first layers of Qwen3-VL.
Texts are those of a Qwen3 or a Qwen2: their time, row and column are one.

Source: Qwen3-VL (arXiv:2511.21631); DeepStack (arXiv:2406.04334); M-RoPE (arXiv:2409.12191), interleaved in Qwen3-VL
and in sections in Qwen2-VL; tensor names as in transformers' modeling_qwen3_vl.py, modeling_qwen2_vl.py and
modeling_colqwen2.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from onnx import TensorProto

from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.decoders import QWEN2, QWEN3
from nestvec.export.families.pre_norm import (
    PREFIXES,
    WORD_EMBEDDINGS,
    Decoder,
    DecoderConfig,
    DecoderLayers,
)
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import attention_mask
from nestvec.export.layers.rotary_embedding import RotaryEmbedding, rotary_embedding
from nestvec.export.vision_language import config as qwen3
from nestvec.export.vision_language import qwen2_config as qwen2
from nestvec.export.vision_language.config import AXES, VisionTowerSizes

# Inputs of the graph beside those of any: the places of tokens in time, rows and columns, [3, T], int64; which of the
# batch's tokens are pictures', [P], int64; what stands for them, [P, (1 + layers) * H], float32.
TOKEN_AXES: Final = "axes"  # noqa: S105 - of a graph
PICTURE_PLACES: Final = "picture_places"
PICTURE_ROWS: Final = "picture_rows"


@dataclass(frozen=True, slots=True)
class PictureDecoder:
    """A decoder that reads pictures.

    Attributes:
        family: How its layers differ from Llama's.
        text_fields: Takes its fields out of a whole config.json.
        axis_of_pairs: Returns, of these and a head's width, by which axis each pair of a head is rotated.
        read_tower: Reads the sizes of the tower of pictures from a whole config.json.
        prefixes: What may stand before the names of its tensors.
    """

    family: Decoder = QWEN3
    text_fields: Callable[[Mapping[str, Any]], Mapping[str, Any]] = qwen3.text_fields
    axis_of_pairs: Callable[[Mapping[str, Any], int], tuple[int, ...]] = qwen3.axis_of_pairs
    read_tower: Callable[[Mapping[str, Any]], VisionTowerSizes] = qwen3.read_vision_tower
    prefixes: tuple[str, ...] = PREFIXES

    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the decoder's fields out of a whole config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        return self.family.read(self.text_fields(config))

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs, and check those of the tower.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = self.read(config)
        self.axis_of_pairs(self.text_fields(config), sizes.head_dim)
        self.read_tower(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the decoder to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        A graph for other programs or for a device takes texts only.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = self.read(config)
        graph, inputs = context.graph, context.inputs
        prefix = common_prefix(context.weights, WORD_EMBEDDINGS, self.prefixes)
        layers = DecoderLayers(context, prefix, sizes, self.family)
        words = context.weights.get(prefix + WORD_EMBEDDINGS, (sizes.vocab_size, sizes.hidden_size))
        state = context.embed(words)
        mask = attention_mask(
            graph, inputs, is_causal=sizes.is_causal, window=0, head_width=sizes.head_dim
        )
        frequencies = sizes.frequencies[False]
        pictures = None
        if inputs.has_equal_lengths is not None and inputs.device is None:
            axes = self.axis_of_pairs(self.text_fields(config), sizes.head_dim)
            rotary = _rotary(graph, sizes, axes)
            added = len(self.read_tower(config).deepstack_layers)
            pictures = _Pictures.declare(graph, sizes.hidden_size, added)
            state = pictures.put(state)
        else:
            rotary = rotary_embedding(graph, inputs, frequencies, sizes.max_position_embeddings)
        plain: list[Callable[[str], str]] = [
            partial(layers.layer, name=f"layers.{number}", rotary=rotary, mask=mask)
            for number in range(sizes.num_hidden_layers)
        ]
        steps = plain if pictures is None else pictures.behind(plain)
        states = context.stack(state, steps, sizes.hidden_size)
        return Encoder.finalized(states, sizes.hidden_size, partial(layers.norm, name="norm"))


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Rows of pictures in a graph.

    Attributes:
        graph: The graph in the making.
        size: H.
        added: Behind how many layers rows are added.
        rows: [P, (1 + added) * H].
        places: [P, 1], int64: indices into 0 … T-1.
    """

    graph: GraphBuilder
    size: int
    added: int
    rows: str
    places: str

    @classmethod
    def declare(cls, graph: GraphBuilder, size: int, added: int) -> "_Pictures":
        """Declare the inputs."""
        rows = graph.input(PICTURE_ROWS, "float32", ("P", (1 + added) * size))
        places = graph.input(PICTURE_PLACES, "int64", ("P",))
        last = graph.weight("last", np.array([-1], np.int64))
        return cls(graph, size, added, rows, graph.op("Unsqueeze", places, last))

    def put(self, state: str) -> str:
        """Let rows stand for the tokens of pictures, [T, H] to [T, H]."""
        return self.graph.op("ScatterND", state, self.places, self._part(0))

    def behind(self, layers: Sequence[Callable[[str], str]]) -> list[Callable[[str], str]]:
        """Return layers, [T, H] to [T, H], the first of which add rows behind them."""
        first = [partial(self._added, layer=each, number=n) for n, each in enumerate(layers)]
        return [*first[: self.added], *layers[self.added :]]

    def _added(self, state: str, layer: Callable[[str], str], number: int) -> str:
        return self._add(layer(state), number)

    def _add(self, state: str, layer: int) -> str:
        own = self.graph.op("GatherND", state, self.places)
        raised = self.graph.op("Add", own, self._part(1 + layer))
        return self.graph.op("ScatterND", state, self.places, raised)

    def _part(self, number: int) -> str:
        """Take one of the parts of each row, [P, H]."""
        start, stop = (
            self.graph.weight(f"column_{place}", np.array([place], np.int64))
            for place in (number * self.size, (number + 1) * self.size)
        )
        axis = self.graph.weight("column", np.array([1], np.int64))
        return self.graph.op("Slice", self.rows, start, stop, axis)


def _rotary(graph: GraphBuilder, sizes: DecoderConfig, axes: Sequence[int]) -> RotaryEmbedding:
    """Add every token's angles: each pair turns with one of its three places."""
    frequencies = sizes.frequencies[False]
    by_axis = np.zeros((AXES, len(axes)), np.float32)
    by_axis[np.array(axes), np.arange(len(axes))] = frequencies.values
    places = graph.input(TOKEN_AXES, "int64", (AXES, "T"))
    columns = graph.op("Transpose", graph.op("Cast", places, to=TensorProto.FLOAT), perm=[1, 0])
    weight = graph.weight("frequencies", by_axis, is_exact=True)
    # Two of three products are zeros.
    angle = graph.op("MatMul", columns, weight)
    axis = graph.weight("column", np.array([1], np.int64))
    both_halves = graph.op("Unsqueeze", graph.op("Concat", angle, angle, axis=-1), axis)
    cosine, sine = graph.op("Cos", both_halves), graph.op("Sin", both_halves)
    if frequencies.scale != 1:
        scale = graph.weight(
            "frequencies.factor", np.array(frequencies.scale, np.float32), is_exact=True
        )
        cosine, sine = graph.op("Mul", cosine, scale), graph.op("Mul", sine, scale)
    limit = sizes.max_position_embeddings
    return RotaryEmbedding(cosine, sine, TOKEN_AXES, frequencies, limit)


QWEN3_VL: Final = PictureDecoder()
# As transformers 5 names its tensors, as 4.52 to 4.57 did, and as those before.
COLQWEN2: Final = PictureDecoder(
    QWEN2,
    qwen2.text_fields,
    qwen2.axis_of_pairs,
    qwen2.read_vision_tower,
    ("vlm.language_model.", "vlm.model.language_model.", "vlm.model."),
)
