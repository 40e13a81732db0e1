"""What a report is: what it needs, how it measures over a source of vectors, and what its figures look like.

A report knows nothing of servers, models' files or HTTP: it is given texts and a function that embeds them. So one
table of reports serves the command line, in this process or over a running server, and `POST /v1/reports`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError

# Rows of a table that are listed; the figure beside it counts all.
MAX_ROWS: Final = 50
BLOCK_TEXTS: Final = 4096


class Need(StrEnum):
    """What a report is made of, by the field of a request that gives it."""

    TEXTS = "texts"
    REFERENCE = "reference"  # a second set of texts, which the first is compared with
    PAIRS = (
        "pairs"  # texts that belong together: a query and its answer, a text and its translation
    )
    LABELS = "labels"  # the class, group or language of each text


@dataclass(frozen=True, slots=True)
class ReportData:
    """What a report is made of; what was not given is empty.

    Attributes:
        texts: The N texts.
        reference: Texts to compare these with.
        pairs: Pairs of texts that belong together.
        labels: The class, group or language of each text, N of them or none.
        source: Where these come from, for people: names of files.
    """

    texts: Sequence[str] = ()
    reference: Sequence[str] = ()
    pairs: Sequence[tuple[str, str]] = ()
    labels: Sequence[str] = ()
    source: str = ""

    def given(self, need: Need) -> Sequence[Any]:
        """Return what was given of a kind."""
        given: Sequence[Any] = getattr(self, need.value)
        return given


class EmbedTexts(Protocol):
    """Embeds texts as the model serves them: whole vectors at unit length, too-long texts cut at their end."""

    def __call__(self, texts: Sequence[str], role: str | None = None) -> FloatArray:
        """Return vectors `[N, D]`, float32.

        Args:
            texts: The N texts.
            role: "query" or "passage", for the model's own prompts; None for its default.
        """


@dataclass(frozen=True, slots=True)
class CountedTokens:
    """Tokens of some texts, special ones included, and the seconds that a run of them took.

    Attributes:
        tokens: How many there were.
        elapsed_s: From the first call to the last answer.
    """

    tokens: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under report.

    Attributes:
        name: Its name.
        space: Fingerprint of its embedding space.
        embed: Embeds texts.
        time_run: Embeds texts past any cache, and counts tokens and time.
        tokenizer: Its tokenizer; None where a server has it and does not lend it.
        token_table: Reads its rows of token vectors `[V, H]` in their stored dtype; None where it has none to read.
        runs_here: Whether it runs on this machine, so that meters of energy count it.
        provider: Where its vectors are computed: "cpu" or "cuda".
        quantizer: The ranges of its int8 vectors; None where a server has them and does not tell.
    """

    name: str
    space: str
    embed: EmbedTexts
    time_run: Callable[[Sequence[str]], CountedTokens] | None = None
    tokenizer: Tokenizer | None = None
    token_table: Callable[[], FloatArray | None] | None = None
    runs_here: bool = True
    provider: str = "cpu"
    quantizer: Quantizer | None = None

    @classmethod
    def of_tokenizer(cls, name: str, space: str, tokenizer: Tokenizer) -> "Subject":
        """Return a model of which nothing but the tokenizer is there."""

        def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
            del texts, role
            raise FormatError("only the tokenizer of this model is open")

        return cls(name, space, embed, tokenizer=tokenizer)


@dataclass(frozen=True, slots=True)
class Task:
    """One run of a report.

    Attributes:
        data: What it is made of.
        subject: The model.
        other: The model that the first is compared with, for reports of two.
        seed: Of every draw.
        check: Called now and then; raises where nobody waits any more.
    """

    data: ReportData
    subject: Subject
    other: Subject | None = None
    seed: int = 7
    check: Callable[[], None] = lambda: None


def embedded_blocks(task: Task, texts: Sequence[str]) -> Iterator[tuple[int, FloatArray]]:
    """Yield the first index and the vectors `[B, D]` of each block of texts, so that not all are in memory at once."""
    for start in range(0, len(texts), BLOCK_TEXTS):
        task.check()
        yield start, task.subject.embed(texts[start : start + BLOCK_TEXTS])


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; its fields but `values` are keys of the report's JSON.

    Attributes:
        name: What it is, in words that stay the same from run to run.
        value: The figure.
        n: Number of texts, pairs or draws behind it.
        low: Lower bound of its 95% interval; None where it is a count.
        high: Upper bound.
        p: Probability of such a figure where there is nothing to find; None where nothing is tested.
        unit: "share", "cosine", "correlation", "tokens", …; "" for a plain number.
        better: "higher" or "lower" where one of them is; "" where neither is.
        values: The value of each text or pair, `[N]`, in the order of the data, for paired differences of two models.
    """

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    unit: str = ""
    better: str = ""
    values: Float64Array | None = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return what the report's JSON has of it."""
        names = ("name", "value", "n", "low", "high", "p", "unit", "better")
        row = {name: getattr(self, name) for name in names}
        return {
            name: round(value, 5) if isinstance(value, float) else value
            for name, value in row.items()
        }


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows beside the figures; texts are named by their index, never quoted.

    Attributes:
        title: What the rows are.
        heads: Names of the columns.
        rows: A cell for each column.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]

    def as_json(self) -> dict[str, Any]:
        """Return what the report's JSON has of it."""
        rows = [
            [round(cell, 5) if isinstance(cell, float) else cell for cell in row]
            for row in self.rows
        ]
        return {"title": self.title, "heads": list(self.heads), "rows": rows}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run of a report has measured.

    Attributes:
        figures: The figures.
        tables: Rows beside them.
        notes: What a reader has to know of how they were measured.
    """

    figures: Sequence[Figure]
    tables: Sequence[ReportTable] = ()
    notes: Sequence[str] = ()

    def get(self, name: str) -> Figure | None:
        """Return a figure by its name; None where it was not measured."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def value(self, name: str, default: float = 0.0) -> float:
        """Return the value of a figure, or what stands for one that was not measured."""
        figure = self.get(name)
        return default if figure is None else figure.value


@dataclass(frozen=True, slots=True)
class Report:
    """A kind of report.

    Attributes:
        name: What the command line and requests call it.
        title: What it tells, in a line.
        measure: Measures; called in a thread that may block.
        advise: Says in words what to do about bad figures; nothing where all is well.
        needs: What it cannot do without.
        needs_one_of: Of these it needs at least one.
        takes: What it can use besides; a report without needs has probe texts of its own.
        source: Where the method comes from.
        models: How many models it is about.
        min_items: How many of each need say anything.
        max_items: Of how many of each need at most it takes account.
    """

    name: str
    title: str
    measure: Callable[[Task], Figures]
    advise: Callable[[Figures], list[str]]
    needs: tuple[Need, ...] = ()
    needs_one_of: tuple[Need, ...] = ()
    takes: tuple[Need, ...] = ()
    source: str = ""
    models: int = 1
    min_items: Mapping[Need, int] = field(default_factory=dict)
    max_items: int = 100_000

    @property
    def fields(self) -> tuple[Need, ...]:
        """All that it is made of, what it needs first."""
        return (*self.needs, *self.needs_one_of, *self.takes)
