"""The tower of texts of CLIP and SigLIP: states [T, D] of which the last token's is a text's vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import attention_mask
from nestvec.export.two_towers.config import TextSizes, read_text_sizes
from nestvec.export.two_towers.layers import TowerBuilder

TEXT: Final = "text_model."


@dataclass(frozen=True, slots=True)
class TextTower:
    """The tower of texts.

    Each token sees those before it in CLIP, and all in SigLIP, padding too. Projecting each token's state and pooling
    the last one gives what pooling first would.

    Attributes:
        is_causal: Whether tokens see those before them only.
        projection: The layer behind the final norm.
        has_bias: Whether that has a bias.
    """

    is_causal: bool
    projection: str
    has_bias: bool

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is of the wrong type, or has a value that is not supported.
        """
        sizes = read_text_sizes(config)
        return Dimensions(sizes.projected_size, sizes.vocab_size, sizes.max_positions)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the tower to a graph: ids [T] to token states [T, D] after each layer, normed and projected.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = read_text_sizes(config)
        graph, inputs = context.graph, context.inputs
        mask = attention_mask(
            graph,
            inputs,
            is_causal=self.is_causal,
            window=0,
            head_width=sizes.hidden_size // sizes.num_attention_heads,
        )
        builder = TowerBuilder(context, TEXT, sizes, mask)
        states = builder.stack(self._embedded(context, sizes))

        def project(state: str) -> str:
            normed = builder.norm(state, "final_layer_norm")
            layer = context.linear(
                self.projection, sizes.projected_size, sizes.hidden_size, has_bias=self.has_bias
            )
            return context.arithmetic.apply(graph, normed, [layer])[0]

        return Encoder.finalized(states, sizes.projected_size, project)

    def _embedded(self, context: BuildContext, sizes: TextSizes) -> str:
        """Add embeddings of words and positions, [T, H]."""
        weights, size = context.weights, sizes.hidden_size
        words = weights.get(f"{TEXT}embeddings.token_embedding.weight", (sizes.vocab_size, size))
        places = weights.get(
            f"{TEXT}embeddings.position_embedding.weight", (sizes.max_positions, size)
        )
        graph = context.graph
        table = graph.weight("places", places)
        rows = graph.op("Gather", table, context.inputs.positions, axis=0)
        return graph.op("Add", context.embed(words), rows)


CLIP_TEXT: Final = TextTower(is_causal=True, projection="text_projection", has_bias=False)
SIGLIP_TEXT: Final = TextTower(is_causal=False, projection=f"{TEXT}head", has_bias=True)
