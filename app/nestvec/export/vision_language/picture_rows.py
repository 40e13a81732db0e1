"""Rows that a tower makes of pictures, in place of the embeddings of tokens."""

from typing import Final

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.vision_language.decoder import PICTURE_PLACES, PICTURE_ROWS

ROW_AXIS: Final = "last"


def put_rows(graph: GraphBuilder, embedded: str, width: int) -> str:
    """Declare the inputs of pictures, and let rows stand for their tokens.

    Args:
        graph: The graph in the making.
        embedded: Embeddings of all tokens, [T, H].
        width: H.

    Returns:
        A value [T, H].
    """
    rows = graph.input(PICTURE_ROWS, "float32", ("P", width))
    places = graph.input(PICTURE_PLACES, "int64", ("P",))
    axis = graph.weight(ROW_AXIS, np.array([-1], np.int64))
    return graph.op("ScatterND", embedded, graph.op("Unsqueeze", places, axis), rows)
