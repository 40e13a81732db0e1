"""The frozen values that travel through the engine.

Shapes: B inputs in a batch, T tokens packed end to end, S the longest input, H hidden size, D dimensions.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.pictures.picture import MixedInput, PatchGrid, Picture
from nestvec.engine.splitting import Span, Splitter

FloatArray = NDArray[np.float32]
Float64Array = NDArray[np.float64]
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
    """What the engine returns for an input."""

    DENSE = "dense"  # one vector per input
    TOKENS = "tokens"  # one vector per token
    STATES = "states"  # every column of each token's state; for the engine's own use
    SPARSE = "sparse"  # weights of terms
    LABELS = "labels"  # a score for each label, of a text or of a pair
    # Several of one run; the values are those of the single kinds, joined.
    DENSE_SPARSE = "dense+sparse"
    DENSE_TOKENS = "dense+tokens"
    SPARSE_TOKENS = "sparse+tokens"
    DENSE_SPARSE_TOKENS = "dense+sparse+tokens"


class Layout(StrEnum):
    """How a graph takes its batch."""

    PACKED = "packed"
    PADDED = "padded"
    ROWS = "rows"  # no tokens: a head that takes pooled rows


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that a cross-encoder reads as one input."""

    first: str
    second: str

    def __len__(self) -> int:
        """Number of characters of both texts."""
        return len(self.first) + len(self.second)


TextInput = str | Sequence[int] | Pair


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example: a query and the text that answers it.

    Attributes:
        query: The query.
        response: The text that answers it.
    """

    query: str
    response: str


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """One request for vectors, in no vendor's dialect.

    Attributes:
        inputs: Texts, token ids in the model's own vocabulary, pictures, inputs of texts and pictures, or several of
            these; for labels texts and pairs of texts.
        model: The requested model name; "" where the caller named none.
        dimensions: Cut vectors to this many leading values, then normalize again; None keeps the model's own size.
        normalize: Scale to unit length; None does what the model does by default.
        truncate: What to do with long inputs; None is the server's default.
        max_tokens: Take fewer tokens of each input than the model could, special tokens included.
        refuses_wider_limit: Whether a `max_tokens` beyond the model's own is refused, as vLLM does, instead of ignored.
        max_second_tokens: Take fewer tokens of each pair's second text.
        adds_special_tokens: Whether texts get the model's special tokens.
        prompt_name: Name of a prompt that the model defines.
        prompt_role: "query", "passage", …: use the first prompt of the model that serves the role, if any.
        prompt: A literal text to put before each input.
        instruction: What is wanted of the texts, for models that take instructions in a template of their own.
        examples: Worked examples that precede each text, where the model's template has a place for them.
        output_dtypes: Dtypes besides float32 to give the vectors in.
        chunks: Late chunking: inputs are consecutive chunks of documents, and these are the numbers of chunks of each
            document; each chunk's vector is pooled from token states that saw the whole document (arXiv:2409.04701).
        splits: Late chunking: inputs are documents, and this is how each is cut: spans in characters, or a splitter.
        groups: Numbers of consecutive inputs that make one vector together, before any map or cut; empty: each has one.
        weights: The weight of each input in its group; empty: all weigh the same.
        context: A text before each input, which is read and not pooled; as many as there are inputs, or none.
        pool_factor: Merge similar token vectors, down to one in so many; 1 merges none; None: as the model itself does.
        key_id: API key whose call it is; keys share the queue fairly.
        priority: Scheduling class; None lets the number of inputs decide.
        deadline_s: Monotonic time after which the answer is of no use.
        kind: The output that is asked for.
        layers: Early exits: run only so many layers. Several give a vector each, in this order; empty: all layers.
        adapter: The task whose adapter is asked for, where the model has adapters.
        map_id: A map of the model's, by name or fingerprint; "" for vectors of any layer as they are, to measure them.
        uses_cache: Whether vectors may be kept in the vector cache, and taken from it.
        takes_views: Whether the answer has a place for several vectors of an input, each with the name of its view.
        picture_patches: Most patches of a picture, of models that take pictures in their own shape; None for as many as
            the server or the model's folder says.
        admit: Called with the number of tokens before they are queued; what it raises refuses the call.
    """

    inputs: Sequence[TextInput | Picture | MixedInput]
    model: str = ""
    dimensions: int | None = None
    normalize: bool | None = None
    truncate: Truncation | None = None
    max_tokens: int | None = None
    refuses_wider_limit: bool = False
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
    groups: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    context: tuple[str, ...] = ()
    pool_factor: int | None = None
    key_id: str = ""
    priority: Priority | None = None
    deadline_s: float | None = None
    kind: OutputKind = OutputKind.DENSE
    layers: tuple[int, ...] = ()
    adapter: str | None = None
    map_id: str | None = None
    uses_cache: bool = True
    takes_views: bool = False
    picture_patches: int | None = None
    admit: Callable[[int], Awaitable[None]] | None = None

    @property
    def texts(self) -> Sequence[TextInput]:
        """The inputs of a call that has no pictures, or whose pictures were taken out."""
        return cast("Sequence[TextInput]", self.inputs)


@dataclass(frozen=True, slots=True)
class Item:
    """One tokenized input: what differs between the items of a call. The rest is in `ItemOptions`.

    Attributes:
        ids: Token ids, special tokens included, shape (n,), n >= 1, int32; of a picture what stands for them, as
            `content_ids` makes it.
        index: Position of the input in the request; errors name it.
        skip_tokens: Number of leading tokens (a prompt) that pooling leaves out.
        spans: Parts that are pooled one by one, as (start, stop) in tokens; empty: the whole input.
        second_start: Where the second text of a pair begins, in tokens; 0 for single texts.
        expansion: Number of trailing tokens that see the others and are not seen (ColBERT's query augmentation).
        token_mask: Which tokens' vectors are given out, (n,), bool; None for all.
        gives_states: Whether it gives its token states instead of what the call asks for: a window of a document,
            whose chunks are pooled once the states of all its windows are there.
        pixels: Of a picture its pixels, (S, S, 3), or patches in its own shape, (rows, columns, p, p, 3), uint8; None
            for a text.
        grids: Of pictures among a text's tokens the rows and columns of their patches, and how many of either make a
            token; `pixels` are then all patches, (N, values), those of a token one behind the other, and stand for the
            ids below zero.
    """

    ids: IdArray
    index: int = 0
    skip_tokens: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    second_start: int = 0
    expansion: int = 0
    token_mask: NDArray[np.bool_] | None = None
    gives_states: bool = False
    pixels: NDArray[np.uint8] | None = None
    grids: tuple[PatchGrid, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens, special tokens included."""
        return len(self.ids)


# Stands for exits where pictures wait, which have none.
PICTURES: Final = (-1,)


@dataclass(frozen=True, slots=True)
class ItemOptions:
    """What all items of one call have in common.

    Attributes:
        key_id: API key whose call it is; keys share the queue fairly.
        priority: Scheduling class.
        deadline_s: Monotonic time after which the answer is of no use; None for no deadline.
        kind: Output that the call asks for.
        exits: Numbers of layers, rising, after each of which a vector is taken; empty: after the last layer.
        layer_share: Share of the layers that run, 0 … 1; of pictures what a token costs in tokens of the texts' tower.
        columns: How many leading values of each vector are wanted, if nothing else will be made of it; 0 for all.
        is_half: Whether the vectors will be given out in float16 only.
        arrived_s: Monotonic time when the call came, from which its wait counts; None for when it joins the queue.
        trace: By what the observer knows the call where it records what becomes of it; "" where it does not.
        are_pictures: Whether the items are pictures, which run by a graph of their own.
    """

    key_id: str = ""
    priority: Priority = Priority.INTERACTIVE
    deadline_s: float | None = None
    kind: OutputKind = OutputKind.DENSE
    exits: tuple[int, ...] = ()
    layer_share: float = 1.0
    columns: int = 0
    is_half: bool = False
    arrived_s: float | None = None
    trace: str = ""
    are_pictures: bool = False

    @property
    def batch_key(self) -> tuple[int, ...]:
        """What items that share a batch have in common: their exits; pictures, which have none, keep to themselves."""
        return PICTURES if self.are_pictures else self.exits

    def kind_of(self, item: Item) -> OutputKind:
        """Return what the core makes of an item's token states."""
        return OutputKind.STATES if item.gives_states else self.kind

    @property
    def gives_one_row(self) -> bool:
        """Whether an item gives one row, unless it has spans or gives its token states."""
        return self.kind is OutputKind.DENSE or self.kind is OutputKind.LABELS


DEFAULT_OPTIONS: Final = ItemOptions()


@dataclass(frozen=True, slots=True)
class Submission:
    """One call as the core takes it.

    Attributes:
        options: What its items have in common.
        items: Its items, at least one.
    """

    options: ItemOptions
    items: tuple[Item, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens of all its items."""
        return sum(item.tokens for item in self.items)

    def with_items(self, items: Iterable[Item]) -> "Submission":
        """Return the same call with other items, at least one."""
        return Submission(self.options, tuple(items))


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that run together, as arrays.

    Attributes:
        arrays: The graph's inputs by name.
        lengths: Tokens of each input, shape (B,), int64.
        layout: Packed (T,) or padded (B, S).
        is_lone: Whether nothing else runs or waits, so that this run may use every core.
        exits: Layers after which vectors are taken, as in `ItemOptions`; the same for all items of a batch.
        skips: Leading tokens of each input that pooling leaves out, (B,), int64; empty for none.
        is_pooled: Whether one vector of each input is all that is wanted, of a backend that pools.
        columns: How many leading columns of the vectors are wanted; 0 for all.
        is_half: Whether vectors in float16 are good enough.
        are_pictures: Whether it is of pictures, whose pixels are among the arrays.
        prefix: Of texts with pictures the batches of the pictures, each a sequence of patches, which run before; their
            rows stand for the tokens that `picture_places` among the arrays says, in that order.
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
    are_pictures: bool = False
    prefix: "tuple[Batch, ...]" = ()

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each input starts in the packed order, then T; shape (B + 1,), int64."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])


@dataclass(frozen=True, slots=True)
class RawOutput:
    """What a backend returns: exactly one of `hidden` and `pooled` is set.

    Attributes:
        hidden: Token states packed end to end, shape (T, H), float32.
        pooled: One vector per input where the graph pools, shape (B, H), float32.
        earlier: Token states of all exits before the last, in their order.
    """

    hidden: FloatArray | None = None
    pooled: FloatArray | None = None
    earlier: tuple[FloatArray, ...] = ()
