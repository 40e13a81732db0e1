"""What the engine needs of something that runs a graph, and what batches cost on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Batch, Layout, RawOutput


@dataclass(frozen=True, slots=True)
class CostModel:
    """Prices a batch in token equivalents: its linear work plus what attention really computes.

    Attributes:
        layout: Packed graphs run linear work on T tokens, padded ones on B · S.
        attention_per_pair: Cost of one cell of the [B, S, S] attention area relative to one token. Per layer a token
            costs 24·H² FLOP in a BERT block and a cell 4·H, hence 1 / (6·H).
    """

    layout: Layout
    attention_per_pair: float

    @classmethod
    def of_bert(cls, layout: Layout, hidden_size: int) -> Self:
        """Make the model of BERT's blocks: four products of H x H and two of H x 4·H a layer."""
        return cls(layout, attention_per_pair=1 / (6 * hidden_size))

    def __call__(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch.

        Args:
            lengths: Number of tokens of each input, (B,), int64.
        """
        if len(lengths) == 0:
            return 0.0
        longest = int(lengths.max())
        padded = len(lengths) * longest
        linear = int(lengths.sum()) if self.layout is Layout.PACKED else padded
        return linear + self.attention_per_pair * padded * longest


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
    """

    layout: Layout
    provider: str
    hidden_size: int
    gives_tokens: bool
    layers: int = 0
    gives_exits: bool = False
    pooling: str = ""
    max_cost: float = math.inf


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
