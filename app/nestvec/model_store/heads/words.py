"""The head of word tables: tokens that are parts of one word are averaged before the words are."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.text.subwords.parts import SubwordSettings
from nestvec.engine.vectors.pooler import Pooler
from nestvec.export.families.static import with_part_column
from nestvec.export.layers.graph_heads import GraphHead
from nestvec.model_store.heads.base import Head


@dataclass(frozen=True, slots=True)
class WordHead(Head):
    """A head that pools words, of which those that the vocabulary lacks are means of their parts.

    Attributes:
        subwords: What stands for such words.
    """

    subwords: SubwordSettings = field(default_factory=lambda: SubwordSettings(1))

    @property
    @override
    def columns(self) -> int:
        """Number of columns that the graph gives: the states', and one that tells parts of words."""
        return self.hidden_size + 1

    @override
    def graph_head(self) -> GraphHead | None:
        """Return what adds the column."""
        return partial(with_part_column, rows=self.subwords.rows)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that averages the parts of words first."""
        del artefact, open_backend
        return Pooler(
            self.pooling,
            pooled_columns=self.hidden_size,
            part_column=self.hidden_size,
            token_columns=slice(self.hidden_size),
        )

    @override
    def summary(self) -> dict[str, Any]:
        """Return that words are pooled."""
        return {"words": True}
