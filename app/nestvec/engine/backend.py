"""What the engine needs of something that runs a graph, and what batches cost on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Batch, Layout, RawOutput

# Texts of more tokens than this take the attention of long texts: windowed layers compute blocks of 128 queries instead
# of whole squares, which gain nothing up to here; and rows of several lengths, which need a mask of B·S² cells and lose
# the kernels that never hold a matrix of scores, do not share a batch any more.
LONG_TOKENS: Final = 192
BLOCK_QUERIES: Final = 128  # queries of one block of a windowed layer


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """Layers of a graph that compute attention alike.

    Attributes:
        layers: How many there are.
        window: A token attends to keys at most `window` - 1 away, and texts longer than that run in blocks; 0 where
            all keys are computed.
        is_causal: Whether a token attends to itself and to keys before it only.
    """

    layers: int
    window: int = 0
    is_causal: bool = False

    @property
    def square_share(self) -> float:
        """Share of the S² cells of a text that are computed where it runs as a whole; causal kernels skip a half."""
        return 0.5 if self.is_causal else 1.0

    @property
    def block_keys(self) -> int:
        """Keys of a block of queries: those in the window of any of them."""
        return BLOCK_QUERIES + (1 if self.is_causal else 2) * (self.window - 1)

    def cells(self, lengths: NDArray[np.int64], long_tokens: int) -> float:
        """Return the cells that one of the layers computes for a batch.

        Args:
            lengths: Number of tokens of each input, (B,), int64, at least one.
            long_tokens: Texts of more tokens run in blocks, where there is a window that is narrower than they are.
        """
        longest = int(lengths.max())
        whole_tokens = max(long_tokens, self.window)
        if not self.window or longest <= whole_tokens:
            return self.square_share * len(lengths) * longest * longest
        blocks = -(-lengths // BLOCK_QUERIES) * (BLOCK_QUERIES * self.block_keys)
        # Blocks may hold fewer cells than the square of a text that is just short enough to run as a whole, and need no
        # padding for shorter neighbours; but prices must not fall where a text grows.
        return float(np.maximum(blocks, self.square_share * whole_tokens**2).sum())


@dataclass(frozen=True, slots=True)
class CostModel:
    """Prices a batch in token equivalents: its linear work plus what attention really computes.

    Attributes:
        layout: Packed graphs run linear work on T tokens, padded ones on B · S.
        attention_per_pair: Cost of one cell of attention in every layer relative to one token. Per layer a token costs
            24·H² FLOP in a BERT block and a cell 4·H, hence 1 / (6·H).
        kinds: What the layers compute; empty: [B, S, S] cells in each.
        long_tokens: Texts of more tokens take the attention of long texts.
    """

    layout: Layout
    attention_per_pair: float
    kinds: tuple[AttentionKind, ...] = ()
    long_tokens: int = LONG_TOKENS
    _square_share: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out once what short texts cost: prices are asked for many times a batch."""
        layers = sum(kind.layers for kind in self.kinds)
        squares = sum(kind.layers * kind.square_share for kind in self.kinds)
        object.__setattr__(self, "_square_share", squares / layers if layers else 1.0)

    @classmethod
    def of_bert(cls, layout: Layout, hidden_size: int) -> Self:
        """Make the model of BERT's blocks: four products of H x H and two of H x 4·H a layer, and whole squares."""
        return cls.of_graph(layout, hidden_size, ())

    @classmethod
    def of_graph(cls, layout: Layout, hidden_size: int, kinds: tuple[AttentionKind, ...]) -> Self:
        """Make the model of a graph that says what its layers compute.

        Args:
            layout: Which arrays the graph takes.
            hidden_size: H.
            kinds: What its layers compute; empty where it does not say.
        """
        return cls(layout, 1 / (6 * hidden_size), kinds)

    def __call__(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch; monotone in each length and in B.

        Args:
            lengths: Number of tokens of each input, (B,), int64.
        """
        if len(lengths) == 0:
            return 0.0
        longest = int(lengths.max())
        padded = len(lengths) * longest
        linear = int(lengths.sum()) if self.layout is Layout.PACKED else padded
        if longest <= self.long_tokens:
            return linear + self.attention_per_pair * self._square_share * padded * longest
        return linear + self.attention_per_pair * self.area(lengths)

    def area(self, lengths: NDArray[np.int64]) -> float:
        """Return the cells of attention that a layer computes for a batch, as the mean over all layers.

        Args:
            lengths: Number of tokens of each input, (B,), int64, at least one.
        """
        kinds = self.kinds or (AttentionKind(1),)
        cells = sum(kind.layers * kind.cells(lengths, self.long_tokens) for kind in kinds)
        return cells / sum(kind.layers for kind in kinds)


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a backend is and gives; fixed once it is open.

    Attributes:
        layout: Which arrays it takes.
        provider: Where it runs: "cpu" or "cuda".
        hidden_size: H, the width of the vectors or token states that it gives.
        gives_tokens: Whether it gives token states; otherwise its graph pools, and each input gives one vector only.
        layers: Number of layers to choose from; 0 where it always runs all of them.
        gives_exits: Whether one run can give the states of several exits.
        pooling: How it pools where a batch wants vectors only, a key of `pooling.POOLINGS`; "" where it leaves pooling
            to the engine.
        max_cost: Highest price of a batch, as `Backend.cost` counts, that fits into memory; infinite where it is not
            known.
        max_mixed_tokens: Up to this length inputs of several lengths may share a batch; a longer one shares it with
            inputs of exactly its own length only. None where any may share.
    """

    layout: Layout
    provider: str
    hidden_size: int
    gives_tokens: bool
    layers: int = 0
    gives_exits: bool = False
    pooling: str = ""
    max_cost: float = math.inf
    max_mixed_tokens: int | None = None


class Backend(Protocol):
    """Runs batches of one graph; `run` may be called from several threads at once."""

    @property
    def info(self) -> BackendInfo:
        """What the backend is and gives; the same for as long as it is open."""

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), int64, in token equivalents; monotone in each length and in B."""

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch and wait for it.

        Raises:
            BackendError: The runtime failed; its subclasses say whether memory was short or the device is gone.
        """

    def close(self) -> None:
        """Free the session; no `run` may follow."""


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """How to run a graph in fixed memory on a GPU.

    Attributes:
        max_tokens: Most tokens of one input.
        max_batch_tokens: Most tokens of a batch that will be asked for.
        captured_tokens: Batches of up to so many tokens are padded to one of a few sizes, for each of which a CUDA
            graph is captured; 0 captures none.
    """

    max_tokens: int
    max_batch_tokens: int
    captured_tokens: int = 4096


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How to open a graph.

    Attributes:
        provider: "auto", "cpu" or "cuda".
        device_id: Number of the GPU, as CUDA counts them.
        intra_op_threads: Number of threads inside one run; 1 leaves parallelism to the engine's workers.
        spins: Whether threads inside a run busy-wait for each other, which is faster where nothing else wants the
            cores. Between runs they sleep in any case.
        parallel_runs: How many threads will call `run` at once.
        computes_bf16: Whether to compute in bfloat16, by the runtime that can.
        plain_attention_tokens: Rows of several lengths take plain attention up to this many tokens, and the contrib
            kernel beyond, where a graph has both.
        memory_share: Part of a GPU's memory that all models of this process may take together.
        device: How to run a graph in fixed memory on a GPU; None runs it as onnxruntime runs any graph.
        packs_weights: Whether weights are packed as kernels take them, into memory of this session's own; otherwise
            each run reads them as they lie in the file, which costs short texts most.
    """

    provider: str = "auto"
    device_id: int = 0
    intra_op_threads: int = 1
    spins: bool = False
    parallel_runs: int = 1
    computes_bf16: bool = False
    plain_attention_tokens: int = 128
    memory_share: float = 0.9
    device: DeviceOptions | None = None
    packs_weights: bool = True


BackendFactory = Callable[[Path, Layout, BackendOptions], Backend]
