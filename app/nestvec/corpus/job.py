"""What `nestvec embed` is asked to do, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nestvec.corpus.embedders import TextOptions
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import TextSource
from nestvec.corpus.rows import Chunking
from nestvec.corpus.store_writer import IdKind


@dataclass(frozen=True, slots=True)
class CorpusJob:
    """What to embed, and how.

    Attributes:
        sources: The texts, read one after the other.
        target: A .parquet, .arrow, .npy or .jsonl file, replaced once the new one is whole; None writes JSONL to
            standard output as it comes, unless `store` is given.
        columns: What to read of each record.
        options: The options of all texts.
        with_text: Whether the texts are kept beside the vectors.
        id_kind: What the ids of rows are made of.
        chunking: How documents are cut; None where each record is one text.
        appends: Whether the target keeps what it holds, and only texts are embedded that are new or have changed.
        prunes: Whether rows go whose documents are no longer among the sources; of a target that is added to.
        store: Address of a vector store, "" for none.
    """

    sources: Sequence[TextSource]
    target: Path | None
    columns: Columns = field(default_factory=Columns)
    options: TextOptions = field(default_factory=TextOptions)
    with_text: bool = False
    id_kind: IdKind = IdKind.NAME
    chunking: Chunking | None = None
    appends: bool = False
    prunes: bool = False
    store: str = ""

    @property
    def can_resume(self) -> bool:
        """Whether a later run can read the same texts and go on with the same output."""
        if any(source.is_stdin for source in self.sources):
            return False
        return self.target is not None or bool(self.store)

    @property
    def is_incremental(self) -> bool:
        """Whether texts that the output holds are not embedded again."""
        return self.appends or bool(self.store)


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """What a run did.

    Attributes:
        texts: Number of records, or of documents where these are cut.
        rows: Number of vectors that were made, those of earlier parts of the same run included.
        tokens: Number of their tokens, after truncation.
        truncated: Number of texts that were truncated.
        resumed: Number of records that an interrupted run had embedded.
        unchanged: Number of records that the output held already.
        doubled: Number of records whose text came before, where ids are made of texts.
        metadata: What was noted of the vectors: `StoreLayout.metadata`.
    """

    texts: int = 0
    rows: int = 0
    tokens: int = 0
    truncated: int = 0
    resumed: int = 0
    unchanged: int = 0
    doubled: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


# Called with the number of records and of tokens that were done since the last call.
ProgressListener = Callable[[int, int], None]
# Called with the number of records that an interruption does not lose.
CommitListener = Callable[[int], None]


def ignore_commits(records: int) -> None:
    """Do nothing with the number of records that are safe."""
