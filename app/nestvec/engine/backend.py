"""What the engine needs of something that runs a graph, and what batches cost on it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Batch, Layout, RawOutput


@dataclass(frozen=True, slots=True)
class CostModel:
    """Price of a batch in token equivalents: linear work plus what attention really computes.

    Attributes:
        layout: Packed graphs run linear work on T tokens, padded ones on B x S.
        attention_per_pair: Cost of one cell of the (B, S, S) attention area relative to one token. Per layer a
            token costs 24·H² FLOP in a BERT block and a cell 4·H, hence 1 / (6·H).
    """

    layout: Layout
    attention_per_pair: float

    @classmethod
    def of_bert(cls, layout: Layout, hidden_size: int) -> Self:
        """Of blocks with BERT's shape: four products of H x H and two of H x 4·H a layer."""
        return cls(layout, attention_per_pair=1 / (6 * hidden_size))

    def __call__(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch.

        Args:
            lengths: Tokens of each input, (B,), int64.
        """
        if len(lengths) == 0:
            return 0.0
        longest = int(lengths.max())
        padded = len(lengths) * longest
        linear = int(lengths.sum()) if self.layout is Layout.PACKED else padded
        return linear + self.attention_per_pair * padded * longest


class Backend(Protocol):
    """Runs batches; `run` may be called from several threads at once."""

    @property
    def layout(self) -> Layout:
        """Which arrays it takes."""

    @property
    def provider(self) -> str:
        """Where it runs: "cpu" or "cuda"."""

    @property
    def hidden_size(self) -> int:
        """H of what it gives."""

    @property
    def gives_tokens(self) -> bool:
        """Whether it gives token states; else its graph pools, and there is one vector an input only."""

    @property
    def layers(self) -> int:
        """How many layers there are to choose from; 0 where it runs all of them always."""

    @property
    def pooling(self) -> str:
        """How it pools where a batch wants vectors only, a key of `pooling.POOLINGS`; "" where it leaves that to us."""

    @property
    def max_cost(self) -> float:
        """What a batch may cost for memory to hold it; infinite where nobody knows."""

    @property
    def gives_exits(self) -> bool:
        """Whether one run gives the states of several exits."""

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), in token equivalents; monotone in each length and in B."""

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: The runtime failed.
        """

    def close(self) -> None:
        """Free the session; no `run` may follow."""


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """How to run a graph on a device.

    Attributes:
        max_tokens: The most of one input.
        max_batch_tokens: The most of a batch that will be asked for.
        captured_tokens: Batches up to so many are filled up and started as one; 0 for none.
    """

    max_tokens: int
    max_batch_tokens: int
    captured_tokens: int = 4096


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How to open a graph.

    Attributes:
        provider: "auto", "cpu" or "cuda".
        intra_op_threads: Threads inside one run; 1 leaves parallelism to the engine's workers.
        spins: Whether threads inside a run wait for each other awake: faster where nothing else wants the cores. They
            sleep between runs all the same.
        parallel_runs: How many threads will call `run` at once.
        computes_bf16: Compute in bfloat16, by the runtime that can.
        plain_attention_tokens: Rows of several lengths up to this many tokens take plain attention, where a graph
            has both; longer ones the contrib kernel.
        memory_share: Part of a GPU's memory that all models of this process may take together.
        device: How to run a graph that was made for a device; None for any other.
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


BackendFactory = Callable[[Path, Layout, BackendOptions], Backend]
