"""ColPali: PaliGemma's decoder, a Gemma in which all tokens see all, and the SigLIP before it that reads pictures.

Rows of the tower stand for the embeddings of tokens, as they are: those of texts are multiplied by sqrt(H), which the
library's fourth version does with rows too, after it has divided them by it. Positions begin with one in the library;
as they turn queries and keys alike, only their distances count.

Source: ColPali (arXiv:2407.01449), PaliGemma (arXiv:2407.07726); tensor names as in transformers' modeling_colpali.py
of 4.57 and 5.24, and in the files that either writes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.gemma import GEMMA
from nestvec.export.families.pre_norm import (
    WORD_EMBEDDINGS,
    Decoder,
    DecoderConfig,
    DecoderLayers,
)
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.two_towers.patches import CHANNELS
from nestvec.export.two_towers.picture_graph import PixelScale, begun_picture_graph
from nestvec.export.two_towers.siglip_states import siglip_states
from nestvec.export.vision_language.colpali_config import read_vision_sizes, text_fields
from nestvec.export.vision_language.picture_rows import put_rows

# What stands before the names of a model's parts: in files of 4.57 and 5.24, in the memory of either, and without
# the name of the whole, as 5.24 takes them too.
PREFIXES: Final = ("vlm.", "vlm.model.", "")
DECODERS: Final = tuple(
    prefix + name for prefix in PREFIXES for name in ("language_model.model.", "language_model.")
)
TOWERS: Final = tuple(
    prefix + name for prefix in PREFIXES for name in ("vision_tower.vision_model.", "vision_tower.")
)
PATCH_EMBEDDING: Final = "embeddings.patch_embedding.weight"
PROJECTOR: Final = "multi_modal_projector.linear"
BIDIRECTIONAL_GEMMA: Final = replace(GEMMA, is_causal=False)


@dataclass(frozen=True, slots=True)
class ColPaliDecoder:
    """The decoder.

    Attributes:
        family: How its layers differ from Llama's.
    """

    family: Decoder = BIDIRECTIONAL_GEMMA

    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the decoder's fields out of a whole config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        return self.family.read(text_fields(config))

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs, and check those of the tower.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = self.read(config)
        read_vision_sizes(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the decoder to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        A graph for other programs or for a device takes texts only.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = self.read(config)
        inputs = context.inputs
        prefix = common_prefix(context.weights, WORD_EMBEDDINGS, DECODERS)
        layers = DecoderLayers(context, prefix, sizes, self.family)
        words = context.weights.get(prefix + WORD_EMBEDDINGS, (sizes.vocab_size, sizes.hidden_size))
        words *= np.float32(np.sqrt(sizes.hidden_size))  # in place: the table has gigabytes
        state = context.embed(words)
        if inputs.has_equal_lengths is not None and inputs.device is None:
            state = put_rows(context.graph, state, sizes.hidden_size)
        return layers.behind(state)


COLPALI_DECODER: Final = ColPaliDecoder()


def export_page_graph(
    folder: Path,
    config: Mapping[str, Any],
    scale: PixelScale,
    path: Path,
    on_tensor: Callable[[int], None] | None = None,
) -> None:
    """Write the graph of a model's pictures: `pixels` [N, p * p * 3], bytes, to `hidden` [N, H].

    N is the number of patches of all pictures of a batch, of which each has as many. Beside the pixels it takes the
    packed inputs of any graph, of a sequence for each picture.

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
    sizes, width = read_vision_sizes(config), COLPALI_DECODER.read(config).hidden_size
    shape = ("N", CHANNELS * sizes.patch_size**2)
    with begun_picture_graph("page_tower", shape, folder, path, on_tensor) as (context, pixels):
        graph, weights = context.graph, context.weights
        tower = common_prefix(weights, PATCH_EMBEDDING, TOWERS)
        states = siglip_states(context, sizes, pixels, scale, prefix=tower)
        prefix = common_prefix(weights, f"{PROJECTOR}.weight", PREFIXES)
        layer = context.linear(PROJECTOR, width, sizes.hidden_size, prefix=prefix, has_bias=True)
        (rows,) = context.arithmetic.apply(graph, states, [layer])
    graph.output(rows, "hidden", ("N", width))
    graph.save(path)
