"""The frozen values that travel through the engine, and what it needs from outside.

Shapes: B inputs in a batch, T tokens packed end to end, S the longest input, H hidden size, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.instructions import Example
from nestvec.engine.splitting import Span, Splitter

FloatArray = NDArray[np.float32]
IdArray = NDArray[np.int32]


class Truncation(StrEnum):
    """What to do with an input that is longer than the model takes."""

    ERROR = "error"
    END = "end"  # cut the end off: keep the beginning
    START = "start"  # cut the start off: keep the end
    WINDOWS = "windows"  # read all of it in overlapping windows, whose vectors are averaged


class Priority(StrEnum):
    """Scheduling class."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class OutputKind(StrEnum):
    """What a backend returns for an item."""

    DENSE = "dense"  # one vector an input
    TOKENS = "tokens"  # one a token
    STATES = "states"  # every column of a token's state; for the engine's own use
    SPARSE = "sparse"  # weights of terms
    LABELS = "labels"  # a score for each label, of a text or of a pair


class Layout(StrEnum):
    """How a graph wants its batch."""

    PACKED = "packed"
    PADDED = "padded"
    ROWS = "rows"  # no tokens: what stands behind the pooling


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that a cross-encoder reads as one input."""

    first: str
    second: str

    def __len__(self) -> int:
        """Characters of both."""
        return len(self.first) + len(self.second)


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """One request for vectors, in no vendor's dialect.

    Attributes:
        inputs: Texts, token ids in the model's own vocabulary, or both; for labels texts and pairs of them.
        model: The name asked for; "" where the caller named none.
        dimensions: Cut to the first so many values, then renormalise; None is the model's own size.
        normalize: Scale to unit length; None is the model's own habit.
        truncate: What to do with long inputs; None is the server's default.
        max_tokens: Take fewer tokens an input than the model could, special tokens included.
        max_second_tokens: Take fewer tokens of each pair's second text.
        adds_special_tokens: Whether texts get the model's special tokens.
        prompt_name: A prompt the model defines.
        prompt_role: "query", "passage", …: the first prompt of the model that serves the role, if any.
        prompt: A literal text to put before each input.
        instruction: What is wanted of the texts, for models that take it in their own template.
        examples: Worked ones that stand before, where their template has a place for them.
        output_dtypes: What else than float32 to give the vectors in.
        chunks: Late chunking: inputs are consecutive chunks of documents, so many of each; each chunk's vector is
            pooled from token states that saw the whole document (arXiv:2409.04701).
        splits: Late chunking: inputs are documents, and this is how each is cut: spans in characters, or a splitter.
        pool_factor: Merge like token vectors, down to one in so many; 1 merges none.
        layers: Early exits: run so many layers only. Several give a vector each, in this order; none: all layers.
        adapter: The task whose adapter is asked for, where the model has any.
        map_id: A map of the model's that vectors go through, by its name or fingerprint; "" for vectors of any layer as
            they are, which is for those who measure.
        key_id: Whose call it is; keys share the queue fairly.
        priority: Scheduling class; None lets the number of inputs decide.
        deadline_s: Monotonic time after which the answer is of no use.
        uses_cache: Whether vectors may be kept, and found where they were.
    """

    inputs: Sequence[str | Sequence[int] | Pair]
    model: str = ""
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: Truncation | None = None
    max_tokens: int | None = None
    max_second_tokens: int | None = None
    adds_special_tokens: bool = True
    prompt_name: str | None = None
    prompt_role: str | None = None
    prompt: str | None = None
    instruction: str | None = None
    examples: tuple[Example, ...] = ()
    output_dtypes: tuple[OutputDtype, ...] = ()
    chunks: tuple[int, ...] = ()
    splits: tuple[tuple[Span, ...] | Splitter, ...] = ()
    pool_factor: int = 1
    key_id: str = ""
    priority: Priority | None = None
    deadline_s: float | None = None
    kind: OutputKind = OutputKind.DENSE
    layers: tuple[int, ...] = ()
    adapter: str | None = None
    map_id: str | None = None
    uses_cache: bool = True


@dataclass(frozen=True, slots=True)
class Item:
    """One input, tokenised.

    Attributes:
        ids: Token ids, special tokens included, shape (n,), n >= 1, int32.
        index: Position in the request.
        skip_tokens: Leading tokens (a prompt) that pooling leaves out.
        exits: Numbers of layers, rising, behind each of which a vector is taken; none: behind the last.
        depth: Share of the layers that it runs, 0 … 1.
        spans: Parts to pool each for itself, as (start, stop) in tokens; none: the whole.
        second_start: Where the second text of a pair begins, in tokens; 0 for single texts.
        expansion: Trailing tokens that see the others and are not seen (ColBERT's query augmentation).
        token_mask: Which tokens' vectors are given out, (n,), bool; None for all.
        columns: How many leading values of its vector are wanted, if nothing else will be made of it; 0 for all.
        is_half: Whether its vector will be given out in float16 alone.
    """

    ids: IdArray
    index: int = 0
    skip_tokens: int = 0
    key_id: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline_s: float | None = None
    kind: OutputKind = OutputKind.DENSE
    exits: tuple[int, ...] = ()
    depth: float = 1.0
    spans: tuple[tuple[int, int], ...] = ()
    second_start: int = 0
    expansion: int = 0
    token_mask: NDArray[np.bool_] | None = None
    columns: int = 0
    is_half: bool = False

    @property
    def tokens(self) -> int:
        """How many tokens the item has."""
        return len(self.ids)

    @property
    def is_pooled_whole(self) -> bool:
        """Whether it gives one row, of all its tokens."""
        return self.kind in (OutputKind.DENSE, OutputKind.LABELS) and not self.spans


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that run together, as arrays.

    Attributes:
        arrays: The graph's inputs by name.
        lengths: Tokens of each input, shape (B,), int64.
        layout: Packed (T,) or padded (B, S).
        is_lone: Nothing else runs or waits, so a run may use every core.
        exits: See `Item`; those of a batch are the same for all.
        skips: Leading tokens of each input that pooling leaves out, (B,), int64; empty for none.
        is_pooled: Whether a vector of each input is all that is wanted, of a backend that pools.
        columns: How many leading columns of vectors are wanted; 0 for all.
        is_half: Whether vectors in float16 are good enough.
    """

    arrays: Mapping[str, NDArray[Any]]
    lengths: NDArray[np.int64]
    layout: Layout
    is_lone: bool = False
    exits: tuple[int, ...] = ()
    skips: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    is_pooled: bool = False
    columns: int = 0
    is_half: bool = False

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each input starts in the packed order, then T; shape (B + 1,), int64."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a backend returns: exactly one of the first two is set.

    Attributes:
        hidden: Token states packed end to end, shape (T, H), float32.
        pooled: One vector per input where the graph pools, shape (B, H), float32.
        earlier: Token states of all exits before the last, in their order.
    """

    hidden: FloatArray | None = None
    pooled: FloatArray | None = None
    earlier: tuple[FloatArray, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk lies.

    Attributes:
        document: Index of its document in the call.
        start: In the document, in characters (Unicode code points); likewise `stop`, which is behind it.
        tokens: Of the document's, that are pooled for it.
    """

    document: int
    start: int
    stop: int
    tokens: int


@dataclass(frozen=True, slots=True)
class LongInput:
    """What became of an input that was longer than the model takes.

    Attributes:
        index: Of the input, or of the document.
        seen_tokens: Of the input's own.
        dropped_tokens: Cut off.
        drops_more: Whether that is the least: the rest was not tokenised.
        windows: How many it was read in; 1 where it was cut.
    """

    index: int
    seen_tokens: int
    dropped_tokens: int
    drops_more: bool
    windows: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a call went, in seconds."""

    tokenize_s: float = 0.0
    queue_wait_s: float = 0.0
    engine_s: float = 0.0
    postprocess_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.tokenize_s + self.queue_wait_s + self.engine_s + self.postprocess_s


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The answer to an EmbedCall.

    Attributes:
        vectors: One row per input in input order, shape (B, D), float32; for token vectors as many rows as the input
            has tokens, for sparse ones a row (id, weight) for each term, for labels their scores before any activation.
        converted: The same in the dtypes asked for: (B, D), or (B, D / 8) for bits.
        rows: Of each input.
        quantization: Id of the ranges that int8 and uint8 values are in, "" where none were asked for.
        input_tokens: Tokens run per input, special tokens included, after truncation.
        is_truncated: Per input, whether tokens were cut off.
        model: The served model's name.
        space: Fingerprint of the embedding space.
        provider: Where the model runs: "cpu" or "cuda".
        layers: How many were run; 0 for all.
        map_name: The map that vectors went through, "" for none.
        long_inputs: What became of inputs that were too long; none of others.
        chunks: Of documents that were cut here: where each chunk lies.
        prompt_used: Name of the prompt applied, "" for a literal one, None for none.
    """

    vectors: FloatArray
    input_tokens: tuple[int, ...]
    is_truncated: tuple[bool, ...]
    model: str
    space: str
    prompt_used: str | None = None
    timings: Timings = field(default_factory=Timings)
    converted: Mapping[OutputDtype, NDArray[Any]] = field(default_factory=dict)
    rows: tuple[int, ...] = ()
    quantization: str = ""
    provider: str = "cpu"
    layers: int = 0
    map_name: str = ""
    long_inputs: tuple[LongInput, ...] = ()
    chunks: tuple[Chunk, ...] = ()

    def by_input(self, vectors: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut rows of all inputs into those of each.

        Args:
            vectors: `self.vectors` or one of `self.converted`.
        """
        stops = np.cumsum(self.rows)
        return [vectors[stop - n : stop] for n, stop in zip(self.rows, stops, strict=True)]


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What one micro-batch was and cost.

    Attributes:
        tokens: Real tokens T.
        padded_tokens: B x S, what a padded batch would hold.
        waits_s: Queue wait of each item.
        engine_s: Time in collation, graph and pooling.
        outcome: "ok" or "error".
        prediction_error: |predicted - real| / real engine time; None where nothing was predicted.
    """

    items: int
    tokens: int
    padded_tokens: int
    waits_s: tuple[float, ...]
    engine_s: float
    outcome: str
    prediction_error: float | None = None


class Observer(Protocol):
    """What the engine tells whoever counts; called from several threads."""

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """A micro-batch has run."""

    def queue_changed(self, model: str, *, items: int, tokens: int) -> None:
        """Items have joined or left the queue."""

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """A call was answered with all its vectors."""

    def inputs_were_long(self, model: str, inputs: Sequence["LongInput"]) -> None:
        """Inputs of an answered call were longer than the model takes."""

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Items left without a vector: "cancelled", "deadline", "queue_full" or "failed"."""

    def memory_was_short(self, model: str) -> None:
        """A batch did not fit into memory."""


class NullObserver:
    """Counts nothing; for offline use and tests."""

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """Ignore."""

    def queue_changed(self, model: str, *, items: int, tokens: int) -> None:
        """Ignore."""

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """Ignore."""

    def inputs_were_long(self, model: str, inputs: Sequence[LongInput]) -> None:
        """Ignore."""

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Ignore."""

    def memory_was_short(self, model: str) -> None:
        """Ignore."""


@dataclass(frozen=True, slots=True)
class RawVectors:
    """What the core returns for a call.

    Attributes:
        vectors: Not cut nor normalised; (R, D), float32, in item order.
        rows: Of each item.
        queue_wait_s: The longest wait among the items.
        engine_s: From the first item's start to the last vector, queue wait excluded.
    """

    vectors: FloatArray
    rows: tuple[int, ...]
    queue_wait_s: float
    engine_s: float
