"""What stands behind models that compare a text's tokens with a picture's patches: one layer, to few dimensions.

Source: ColPali (arXiv:2407.01449), section 4; transformers' modeling_colpali.py and modeling_colqwen2.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.types import OutputKind
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import GraphHead, dense_head, read_dense
from nestvec.model_store.heads.base import Head

PROJECTION: Final = "embedding_proj_layer"
QUERY: Final = "query"


@dataclass(frozen=True, slots=True)
class PatchHead(Head):
    """A head that projects each token's state to a vector that is compared with others one by one.

    Attributes:
        vector_size: Dimensions of these vectors.
    """

    vector_size: int = 0

    @property
    @override
    def dimensions(self) -> int:
        """Dimensions of a token's vector."""
        return self.vector_size

    @property
    @override
    def columns(self) -> int:
        """Columns that the graph gives for each token."""
        return self.vector_size

    @override
    def graph_head(self) -> GraphHead | None:
        """Return the projection, [T, D].

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        with Weights(self.folder) as weights:
            return dense_head(
                [read_dense(weights, [PROJECTION], self.hidden_size, self.vector_size)]
            )

    @override
    def summary(self) -> dict[str, Any]:
        """Return how queries are read; its repr is hashed, so classes of `LateInteraction` keep names and fields."""
        return {"patches": repr(self.late_interaction)}


def patch_head(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    vector_size: int,
    late: LateInteraction,
    query_prefix: str,
) -> PatchHead:
    """Make the head of a model that compares patches.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        hidden_size: Columns of the decoder's states, H.
        vector_size: Dimensions of a token's vector.
        late: How queries are tokenized.
        query_prefix: The text before a query; documents of text have none.
    """
    return PatchHead(
        folder,
        config,
        hidden_size,
        "mean",
        kinds=(OutputKind.TOKENS,),
        late_interaction=late,
        prompts={QUERY: query_prefix, "document": ""},
        default_prompt=QUERY,
        vector_size=vector_size,
    )


def check_alone(folder: Path, modules: Sequence[str]) -> None:
    """Refuse a module chain that has more than a model of this kind and a norm.

    Raises:
        FormatError: It has; names the module.
    """
    others = [kind for kind in modules if kind not in ("Transformer", "Normalize")]
    if others:
        raise FormatError(
            f"{folder}: modules.json: '{others[0]}' behind a model that compares patches is not supported"
        )
