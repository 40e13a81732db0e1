"""The frozen values that an answered call is made of.

Shapes: B inputs of the call, H hidden size, D dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import FloatArray, OutputKind


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk of a document lies.

    Attributes:
        document: Index of its document in the call.
        start: Where it begins in the document, in characters (Unicode code points).
        stop: Where it ends in the document, exclusive, in characters.
        tokens: Number of the document's tokens that its vector is pooled from.
    """

    document: int
    start: int
    stop: int
    tokens: int


@dataclass(frozen=True, slots=True)
class LongInput:
    """What became of an input that was longer than the model takes.

    Attributes:
        index: Index of the input, or of the document.
        seen_tokens: Number of the input's own tokens that the model read.
        dropped_tokens: Number of tokens that were cut off.
        drops_more: Whether `dropped_tokens` is a lower bound: the rest was not tokenized.
        windows: Number of windows that it was read in; 1 where it was cut.
    """

    index: int
    seen_tokens: int
    dropped_tokens: int
    drops_more: bool
    windows: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a call went, in seconds; the times of the core are those of `RawVectors`.

    Attributes:
        started_s: Monotonic time when tokenizing began.
    """

    tokenize_s: float = 0.0
    queue_wait_s: float = 0.0
    engine_s: float = 0.0
    postprocess_s: float = 0.0
    started_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Sum of all stages."""
        return self.tokenize_s + self.queue_wait_s + self.engine_s + self.postprocess_s


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The answer to an `EmbedCall`.

    Attributes:
        vectors: Rows in input order, float32: one (D,) vector per input, shape (B, D); for token vectors as many rows
            as the input has tokens; for sparse vectors a row (id, weight) for each term; for labels their scores before
            any activation.
        input_tokens: Number of tokens run per input, special tokens included, after truncation.
        is_truncated: Per input, whether tokens were cut off.
        model: The served model's name.
        space: Fingerprint of the embedding space.
        prompt_used: Name of the prompt that was applied, "" for a literal one, None for none.
        timings: Where the time went.
        converted: The vectors in the dtypes asked for: (B, D), or (B, D / 8) for bits.
        rows: Number of rows of each input.
        quantization: Id of the ranges that int8 and uint8 values are in, "" where none were asked for.
        provider: Where the model runs: "cpu" or "cuda".
        layers: Number of layers that were run; 0 for all.
        map_name: The map that the vectors went through, "" for none.
        labels: What each value of the vectors stands for, where the map gives one for each label.
        long_inputs: What became of inputs that were too long; inputs that were not are missing.
        chunks: Where each chunk lies, of documents that were cut here.
        by_kind: The same for each kind of output, where several were asked for; `vectors` are of the first then.
        unknown_tokens: Per input, how many tokens stand for what the vocabulary lacks, or were left out for it; empty
            where there is none in any.
        instruction_tokens: Per input, or per document, how many of its tokens are those of the prompt that the call
            asked for; empty where it asked for none.
        views: Several vectors of each input, by the name of the view, where the call takes them; `vectors` and
            `converted` are those of the first.
        route: Which of a recipe's parts took how many inputs, and why; "" where nothing was routed.
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
    labels: tuple[str, ...] = ()
    long_inputs: tuple[LongInput, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    by_kind: Mapping[OutputKind, "EmbedResult"] = field(default_factory=dict)
    unknown_tokens: tuple[int, ...] = ()
    instruction_tokens: tuple[int, ...] = ()
    views: Mapping[str, "EmbedResult"] = field(default_factory=dict)
    route: str = ""

    def by_input(self, vectors: NDArray[Any]) -> list[NDArray[Any]]:
        """Cut the rows of all inputs into one array per input.

        Args:
            vectors: `self.vectors` or one of `self.converted`.
        """
        stops = np.cumsum(self.rows)
        return [vectors[stop - n : stop] for n, stop in zip(self.rows, stops, strict=True)]


@dataclass(frozen=True, slots=True)
class RawVectors:
    """What the core returns for a call.

    Attributes:
        vectors: Rows in item order, neither cut nor normalized; (R, D), float32.
        rows: Number of rows of each item.
        queue_wait_s: The longest queue wait among the items.
        engine_s: Time from the first item's start to the last vector, queue wait excluded.
    """

    vectors: FloatArray
    rows: tuple[int, ...]
    queue_wait_s: float
    engine_s: float
