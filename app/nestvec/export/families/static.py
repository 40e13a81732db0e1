"""Static embeddings: a table of token vectors and no layers; pooling does the rest.

Source: WordLlama, model2vec, and sentence-transformers' StaticEmbedding; the idea is fastText's (arXiv:1607.01759).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.export.config.config_fields import positive
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext

# Names of the table: sentence-transformers' and model2vec's.
TABLES: Final = ("embedding.weight", "embeddings")


@dataclass(frozen=True, slots=True)
class Static:
    """The family.

    Attributes:
        prefix: Under which checkpoints with a head keep the table.
    """

    prefix: str = "model."

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs; the number of tokens has no limit.

        Raises:
            FormatError: A field is missing or of the wrong type.
        """
        return Dimensions(positive(config, "hidden_size"), positive(config, "vocab_size"), None)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the table to a graph: ids [T] to token vectors [T, H].

        Raises:
            FormatError: The table is missing or of another shape.
        """
        sizes = self.dimensions(config)
        name = next((table for table in TABLES if table in context.weights), "")
        if not name:
            name = common_prefix(context.weights, TABLES[0], ("", self.prefix)) + TABLES[0]
        table = context.weights.get(name, (sizes.vocab_size, sizes.hidden_size))
        graph = context.graph
        state = graph.op("Gather", graph.weight("table", table), context.inputs.ids, axis=0)
        return Encoder((state,), sizes.hidden_size)


STATIC: Final = Static()
