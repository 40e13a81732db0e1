"""Static embeddings: a table of token vectors and no layers; pooling does the rest.

Source: WordLlama, model2vec, and sentence-transformers' StaticEmbedding; the idea is fastText's (arXiv:1607.01759).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.blocks import Encoder
from nestvec.export.layers.build_context import BuildContext

# Names of the table: sentence-transformers' and model2vec's.
TABLES: Final = ("embedding.weight", "embeddings")
# Tensors beside it: what each token's vector is multiplied by, and the row that each token has.
WEIGHTS: Final = "weights"
MAPPING: Final = "mapping"
# Fields of a config: the table's rows where ids are others, which of those tensors count, and words made of parts.
TABLE_ROWS: Final = "table_rows"
HAS_WEIGHTS: Final = "has_weights"
HAS_MAPPING: Final = "has_mapping"
SUBWORDS: Final = "subwords"


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
            FormatError: The table is missing or of another shape, or so is a tensor beside it.
        """
        sizes = self.dimensions(config)
        rows = positive(config, TABLE_ROWS, sizes.vocab_size)
        name = next((table for table in TABLES if table in context.weights), "")
        if not name:
            name = common_prefix(context.weights, TABLES[0], ("", self.prefix)) + TABLES[0]
        table = context.weights.get(name, (rows, sizes.hidden_size))
        graph, ids, tokens = context.graph, context.inputs.ids, sizes.vocab_size
        if SUBWORDS in config:
            # Each row has two ids; the second goes on with the word of the row before it.
            ids, tokens = graph.op("Mod", ids, _rows(context, rows)), rows
        table_rows = ids
        if config.get(HAS_MAPPING):
            mapping = graph.weight("mapping", _mapping(context, tokens, rows))
            table_rows = graph.op("Gather", mapping, ids, axis=0)
        state = context.look_up("table", table, table_rows)
        if config.get(HAS_WEIGHTS):
            values = context.weights.get(WEIGHTS, (tokens,))[:, None]
            weights = graph.op("Gather", graph.weight("token_weights", values), ids, axis=0)
            state = graph.op("Mul", state, weights)
        return Encoder((state,), sizes.hidden_size)


STATIC: Final = Static()


def with_part_column(context: BuildContext, encoder: Encoder, rows: int) -> tuple[str, int]:
    """Add a column behind the states that is 1 for tokens that go on with a word, 0 for those that start one.

    Args:
        context: The graph in the making.
        encoder: What gives the states, [T, H].
        rows: Number of rows of the table, from which on ids go on with a word.

    Returns:
        A value [T, H + 1], and H + 1.
    """
    graph = context.graph
    goes_on = graph.op("GreaterOrEqual", context.inputs.ids, _rows(context, rows))
    column = graph.op("Cast", goes_on, to=TensorProto.FLOAT)
    axis = graph.weight("last_axis", np.array([-1], np.int64))
    column = graph.op("Unsqueeze", column, axis)
    width = encoder.hidden_size + 1
    return graph.op("Concat", encoder.states[-1], column, axis=1), width


def _rows(context: BuildContext, rows: int) -> str:
    return context.graph.weight("rows", np.array(rows, np.int64))


def _mapping(context: BuildContext, tokens: int, rows: int) -> NDArray[np.int64]:
    """Read the row of each token.

    Raises:
        FormatError: It is missing, of another shape, or names rows that there are not.
    """
    values = context.weights.raw(MAPPING)
    if values.shape != (tokens,) or values.dtype.kind not in "iu":
        raise FormatError(
            f"tensor '{MAPPING}' must hold {tokens} row numbers, not {values.shape} {values.dtype}"
        )
    if not (int(values.min()) >= 0 and int(values.max()) < rows):
        raise FormatError(f"tensor '{MAPPING}' names rows beyond the table's {rows}")
    mapping: NDArray[np.int64] = values.astype(np.int64)
    return mapping
