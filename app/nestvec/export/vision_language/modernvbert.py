"""ColModernVBERT: a ModernBERT among whose tokens may be those of pictures, and a SigLIP before it that reads tiles.

Rows of the tower stand for the embeddings of tokens, before their norm; to the encoder they are tokens as any others.

Source: ModernVBERT (arXiv:2510.01149); tensor names as in transformers' modeling_colmodernvbert.py, and as in
colpali-engine's older checkpoints.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.modernbert import WORD_EMBEDDINGS, encoded
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import Weights, common_prefix
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.patches import CHANNELS, reshaped
from nestvec.export.two_towers.picture_graph import PixelScale, begun_picture_graph
from nestvec.export.two_towers.siglip_states import siglip_states
from nestvec.export.vision_language.modernvbert_config import (
    CONNECTOR,
    PATCH_EMBEDDING,
    TEXT_MODEL,
    VISION_PREFIXES,
    ModernVBertSizes,
    checkpoint_prefix,
    read_sizes,
)
from nestvec.export.vision_language.picture_rows import put_rows

# Where the authors' checkpoints keep the embeddings of tokens that ModernBERT had not.
ADDED_EMBEDDINGS: Final = "embeddings.tok_embeddings.additional_embedding.weight"


@dataclass(frozen=True, slots=True)
class ModernVBert:
    """The encoder of texts, and of pictures among them."""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs, and check those of the tower.

        Raises:
            FormatError: A field is of the wrong type, or has a value that is not supported.
        """
        text = read_sizes(config).text
        return Dimensions(text.hidden_size, text.vocab_size, text.max_position_embeddings)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the encoder to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        A graph for other programs or for a device takes texts only.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes, inputs = read_sizes(config).text, context.inputs
        prefix = checkpoint_prefix(context.weights) + TEXT_MODEL
        words = _word_embeddings(context.weights, prefix, sizes.vocab_size, sizes.hidden_size)
        embedded = context.embed(words)
        if inputs.has_equal_lengths is not None and inputs.device is None:
            embedded = put_rows(context.graph, embedded, sizes.hidden_size)
        return encoded(context, sizes, embedded, prefix)


COL_MODERNVBERT: Final = ModernVBert()


def export_tile_graph(
    folder: Path,
    config: Mapping[str, Any],
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of a model's tiles: `pixels` [N, p * p * 3], bytes, to `hidden` [N / f², H].

    N is the number of patches of all tiles of a batch, those that make a token one behind the other. Beside the pixels
    it takes the packed inputs of any graph, of a sequence for each tile.

    Args:
        folder: Holds the weights.
        config: Content of its config.json.
        scale: How bytes become what the model was trained on.
        path: Where the graph goes; its weights go beside it.
        on_tensor: Called with 1 for each tensor that was read; None for nobody to tell.

    Raises:
        FormatError: Configuration and weights do not fit each other.
        OSError: The disk is full or read-only.
    """
    sizes = read_sizes(config)
    shape = ("N", CHANNELS * sizes.vision.patch_size**2)
    with begun_picture_graph("tile_tower", shape, folder, path, on_tensor) as (context, pixels):
        graph, weights = context.graph, context.weights
        prefix = checkpoint_prefix(weights)
        tower = common_prefix(
            weights, PATCH_EMBEDDING, tuple(prefix + each for each in VISION_PREFIXES)
        )
        states = siglip_states(
            context, sizes.vision, pixels, scale, prefix=tower, merge=sizes.shuffle_factor
        )
        rows = _connected(context, sizes, states, prefix)
    graph.output(rows, "hidden", ("M", sizes.text.hidden_size))
    graph.save(path)


def _connected(context: BuildContext, sizes: ModernVBertSizes, states: str, prefix: str) -> str:
    """Make a row of the states of f rows and f columns of patches, [N, W] to [N / f², H]."""
    wide = sizes.vision.hidden_size * sizes.shuffle_factor**2
    together = reshaped(context.graph, states, "together", -1, wide)
    name = next(
        (
            each
            for each in (CONNECTOR, f"{CONNECTOR}.proj")
            if f"{prefix}{each}.weight" in context.weights
        ),
        CONNECTOR,
    )
    layer = context.linear(name, sizes.text.hidden_size, wide, prefix=prefix)
    return context.arithmetic.apply(context.graph, together, [layer])[0]


def _word_embeddings(weights: Weights, prefix: str, rows: int, width: int) -> Float32Array:
    """Read the table of tokens, [V, H]; the authors' checkpoints keep the last rows apart."""
    added = prefix + ADDED_EMBEDDINGS
    if added not in weights:
        return weights.get(prefix + WORD_EMBEDDINGS, (rows, width))
    more = weights.shape(added)[0]
    tables = (prefix + WORD_EMBEDDINGS, rows - more), (added, more)
    return np.concatenate([weights.get(name, (count, width)) for name, count in tables])
