"""What a machine and a model cost, as `nestvec bench --coefficients` measures it and `nestvec plan` reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nestvec.engine.backend import AttentionKind, CostModel
from nestvec.engine.core.batching.cost_model import BatchSeconds
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.system.json_files import load_json

FORMAT: Final = 1
MAX_FILE_BYTES: Final = 1 << 20
MAX_S: Final = 3600.0
HOW: Final = "measure them on the machine that will serve: nestvec bench --coefficients"


class _Part(BaseModel):
    """A part of the file: unknown and missing fields are errors, and so are numbers out of range."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BatchTimes(_Part):
    """What one batch takes a worker: fixed_s + token_s · T + area_s · A, with A token equivalents of attention.

    Attributes:
        fixed_s: Seconds of a batch however small it is.
        token_s: Seconds a token.
        area_s: Seconds a token equivalent of attention beyond the tokens.
    """

    fixed_s: float = Field(ge=0, le=MAX_S)
    token_s: float = Field(ge=0, le=MAX_S)
    area_s: float = Field(ge=0, le=MAX_S)

    @property
    def seconds(self) -> BatchSeconds:
        """The same as the cost model gives it."""
        return BatchSeconds(self.fixed_s, self.token_s, self.area_s)


class AttentionLayers(_Part):
    """Layers that compute attention alike; see `AttentionKind`."""

    layers: int = Field(ge=1, le=10_000)
    window: int = Field(ge=0, le=2**24)
    is_causal: bool


class BatchPricing(_Part):
    """How the backend prices batches in token equivalents; see `CostModel`."""

    layout: Layout
    attention_per_pair: float = Field(ge=0, le=1)
    long_tokens: int = Field(ge=1)
    kinds: tuple[AttentionLayers, ...] = ()

    @classmethod
    def of(cls, model: CostModel) -> Self:
        """Write a cost model down."""
        kinds = tuple(
            AttentionLayers(layers=kind.layers, window=kind.window, is_causal=kind.is_causal)
            for kind in model.kinds
        )
        return cls(
            layout=model.layout,
            attention_per_pair=model.attention_per_pair,
            long_tokens=model.long_tokens,
            kinds=kinds,
        )

    def cost(self) -> Callable[[NDArray[np.int64]], float]:
        """Return the price of a batch from its lengths, (B,), int64, in token equivalents."""
        kinds = tuple(
            AttentionKind(kind.layers, kind.window, kind.is_causal) for kind in self.kinds
        )
        return CostModel(self.layout, self.attention_per_pair, kinds, self.long_tokens)


class FrontTimes(_Part):
    """What a request takes the thread that speaks HTTP: request_s + text_s · texts + token_s · tokens.

    Attributes:
        wait_s: Seconds that a request waits on no core besides: for threads to be woken, for the kernel.
        wake_s: Seconds of waking up, beside what a request takes: once for all that has come by then, so that a server
            with much to do pays for it seldom.
        request_s: Seconds a request.
        text_s: Seconds a text.
        token_s: Seconds a token.
    """

    request_s: float = Field(ge=0, le=MAX_S)
    text_s: float = Field(ge=0, le=MAX_S)
    token_s: float = Field(ge=0, le=MAX_S)
    wait_s: float = Field(ge=0, le=MAX_S)
    wake_s: float = Field(ge=0, le=MAX_S)

    def of(self, texts: int, tokens: int) -> float:
        """Return the seconds of a request."""
        return self.request_s + self.text_s * texts + self.token_s * tokens


class MachineCoefficients(_Part):
    """What a machine and a model cost.

    Attributes:
        format: Number of the file's format.
        measured_on: Date of the measurement.
        machine: CPU and number of cores.
        model: Name of the model.
        precision: The model's arithmetic.
        dimensions: Number of dimensions of its vectors.
        max_tokens: Most tokens that it takes of a text.
        cores: Cores of the machine, as far as they may be used.
        workers: Workers that run batches.
        lone_threads: Threads for a text that is alone on an idle server.
        max_batch_tokens: Budget of a batch that the server ran with.
        largest_batch_tokens: Tokens of the largest batch that was measured.
        pricing: How batches are priced.
        batch: What a batch takes a worker while the others are idle.
        lone: What a text takes that is alone on an idle server.
        slowdown: How many times as long batches take in a server while all workers are busy.
        dispatch_s: Seconds from when a worker may take a batch until it runs it: of waking threads, and of making room
            for it behind the one before.
        idle_slowdown: By what share batches take longer on a machine that had nothing else to do of late; by half of it
            where its cores were busy half of the time, by none where they always were.
        noise: Standard deviation of the logarithm of a batch's time around what is said here.
        front: What requests take beside their batches.
        server_bytes: Memory of the server under load.
        start_s: Seconds from the start of a server to its first answer.
    """

    format: int = Field(ge=FORMAT, le=FORMAT)
    measured_on: str = Field(max_length=40)
    machine: str = Field(max_length=400)
    model: str = Field(max_length=400)
    precision: str = Field(max_length=40)
    dimensions: int = Field(ge=1, le=2**20)
    max_tokens: int = Field(ge=1, le=2**20)
    cores: int = Field(ge=1, le=4096)
    workers: int = Field(ge=1, le=4096)
    lone_threads: int = Field(ge=1, le=4096)
    max_batch_tokens: int = Field(ge=1, le=2**24)
    largest_batch_tokens: int = Field(ge=1, le=2**24)
    pricing: BatchPricing
    batch: BatchTimes
    lone: BatchTimes
    slowdown: float = Field(ge=0.5, le=100)
    dispatch_s: float = Field(ge=0, le=MAX_S)
    idle_slowdown: float = Field(ge=0, le=10)
    noise: float = Field(ge=0, le=2)
    front: FrontTimes
    server_bytes: int = Field(ge=1)
    start_s: float = Field(gt=0, le=MAX_S)

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read coefficients.

        Args:
            text: JSON.
            name: What errors call the file.

        Raises:
            FormatError: It is no such file; the error names the fields that are missing or wrong.
        """
        try:
            values = load_json(text)
        except ValueError as error:
            raise FormatError(f"{name} holds no JSON: {HOW} FILE") from error
        try:
            found = cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
                for problem in error.errors(include_input=False, include_url=False)
            )
            raise FormatError(f"{name} lacks what a plan needs ({problems}): {HOW} FILE") from error
        if not found.batch.seconds.of(1, 1):
            raise FormatError(f"{name}: batch says that batches take no time: {HOW} FILE")
        return found

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file of coefficients.

        Raises:
            FormatError: There is none, or it is no such file.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise FormatError(f"no coefficients at {path} ({reason}): {HOW} {path}") from error
        if len(content) > MAX_FILE_BYTES:
            raise FormatError(f"{path} is too large for coefficients: {HOW} FILE")
        return cls.parse(content.decode("utf-8", "replace"), str(path))

    def json_text(self) -> str:
        """Return the file's content."""
        return self.model_dump_json(indent=1) + "\n"
