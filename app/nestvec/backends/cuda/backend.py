"""Runs packed batches on a device: two are on their way at a time, small ones are started by one launch."""

import logging
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Semaphore
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.arrays import Feeds
from nestvec.backends.cuda.binding import Binder, Stage, copied_in
from nestvec.backends.cuda.cuda_graphs import Capture, capture_all, run_empty
from nestvec.backends.cuda.device_thread import DeviceLine
from nestvec.backends.cuda.graph_adapter import Plan, Wanted
from nestvec.backends.cuda.memory_estimate import Room, measured_room
from nestvec.backends.cuda.packed_adapter import PackedPlan
from nestvec.backends.cuda.padded_adapter import PaddedPlan
from nestvec.backends.cuda.session import SIZES, DeviceSession, OpenSession
from nestvec.backends.cuda.shapes import Shape
from nestvec.engine.backend import DeviceOptions
from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import BackendMemoryError, FormatError, ModelMemoryError

log = logging.getLogger(__name__)

# The device computes one batch while the next is copied to it; a worker that makes a third ready waits.
BATCHES_UNDER_WAY: Final = 2
# cuBLAS, kernels, buffers: what is beside weights and the arena.
WORKSPACE_BYTES: Final = 512 * 2**20
MOST_ASIDE: Final = 4  # a small device gives at most this part of what is left for it
# As `export/device_graph.py` names them, which the engine does not know.
WEIGHTS: Final = "weights.bin"
EXIT_GRAPH: Final = "exit_{}.onnx"
LEAST_TOKENS: Final = 8192  # probes and lone long inputs are no batch of the scheduler's


class DeviceBackend:
    """One graph and those of its exits on a device, for all workers.

    Args:
        path: The graph, as `export/device_graph.py` makes it, its exits' graphs beside it; or somebody else's.
        line: The device.
        open_session: Opens graphs on it.
        options: How.
        layout: Packed for our own, padded for others'.

    Raises:
        FormatError: The graph cannot be opened, or is none for a device.
        ModelMemoryError: It does not fit.
        ProviderError: The device cannot be used.
        BackendError: It fails on its first runs.
    """

    gives_exits = False

    def __init__(
        self,
        path: Path,
        line: DeviceLine,
        open_session: OpenSession,
        options: DeviceOptions,
        layout: Layout = Layout.PACKED,
    ) -> None:
        self.layout = layout
        self._path, self._line, self._options = path, line, options
        self._open_session = open_session
        self._owner = f"{path}#{id(self)}"
        self._turns = Semaphore(BATCHES_UNDER_WAY)
        self._stages = deque(Stage(line) for _ in range(BATCHES_UNDER_WAY))
        self._sessions: dict[int, DeviceSession] = {}  # by exit; 0 is the whole graph
        self._captures: dict[Shape, Capture] = {}
        self._room: Room
        weights = path.with_name(WEIGHTS)
        # Those of others lie where they like, all of them in the graph's folder.
        files = [weights] if weights.is_file() else path.parent.glob("*")
        self._bytes = sum(one.stat().st_size for one in files if one.is_file())
        aside = min(WORKSPACE_BYTES, line.ledger.left // MOST_ASIDE)
        # For a while all that is left: how much it needs shows when it runs.
        given = line.ledger.take(self._owner, self._bytes + aside, line.ledger.left)
        try:
            line.do(lambda: self._set_up(given - aside))
        except Exception:
            self.close()
            raise
        # What it will not be asked to use is for others.
        most = max(options.max_batch_tokens, options.max_tokens, LEAST_TOKENS)
        batch = self._room.bytes_for(most)
        self._room = replace(self._room, limit=min(self._room.limit, batch))
        line.ledger.give_back(self._owner)
        line.ledger.take(self._owner, 0, min(given, self._bytes + aside + batch))

    @property
    def provider(self) -> str:
        """Where it runs."""
        return self._line.device.kind

    @property
    def hidden_size(self) -> int:
        """Columns of what it gives."""
        return self._plan.hidden_size

    @property
    def gives_tokens(self) -> bool:
        """Whether it gives token states."""
        return self._plan.gives_tokens

    @property
    def layers(self) -> int:
        """How many there are to choose from; 0 where all are run."""
        return self._plan.layers

    @property
    def pooling(self) -> str:
        """How it pools; "" where it gives token states only."""
        return self._plan.pooling

    @property
    def max_cost(self) -> float:
        """What a batch may cost for memory to hold it."""
        return self._room.max_tokens

    @property
    def captured(self) -> tuple[Shape, ...]:
        """Sizes that are started as one."""
        return tuple(self._captures)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch; see `DeviceCost`."""
        return self._plan.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch; vectors where they are all that is wanted, else token states.

        Raises:
            BackendError: The runtime failed.
            BackendMemoryError: It does not fit into memory.
            BackendLostError: The device is gone.
        """
        layer = batch.exits[-1] if batch.exits and batch.exits[-1] < self.layers else 0
        found = None if layer else self._plan.captured(batch.lengths, self._captures)
        shape = found or self._plan.exact(batch.lengths)
        if not self._room.holds(shape):
            raise BackendMemoryError("this batch does not fit into the GPU's memory")
        capture = None if found is None else self._captures[found]
        wanted = self._plan.wanted(batch, shape, layer)
        run = _Run(batch, shape, self._plan.feeds(batch, shape), wanted, layer, capture)
        with self._turns:
            stage = self._stages.pop()
            try:
                return self._run(run, stage)
            finally:
                self._stages.append(stage)

    def close(self) -> None:
        """Free sessions and memory; no `run` may follow."""
        self._line.do(self._close)
        self._line.ledger.give_back(self._owner)

    def _set_up(self, limit: int) -> None:
        """Open, measure and capture; in the device's thread."""
        options = self._options
        session = self._sessions[0] = self._opened(limit)
        kind = PackedPlan if self.layout is Layout.PACKED else PaddedPlan
        plan: Plan = kind.of(session.inputs, session.outputs, session.metadata, options.max_tokens)
        self._plan = plan
        self._memory = Binder(self._line, plan)
        longest = min(options.max_tokens, options.max_batch_tokens)

        def free_after(inputs: int) -> int:
            shape = Shape(inputs * longest, inputs, longest)
            run_empty(session, self._line, plan, shape)
            return self._line.device.memory()[0]

        self._room = measured_room(
            free_after,
            self._line.device.memory()[0],
            max(limit - self._bytes, 0),
            longest,
            options.max_batch_tokens,
            is_padded=plan.is_padded,
            pools=bool(plan.pooling),
        )
        self._captures = capture_all(
            session,
            self._line,
            plan,
            max_tokens=min(options.captured_tokens, options.max_batch_tokens),
            longest=options.max_tokens,
        )

    def _opened(self, limit: int) -> DeviceSession:
        if self._options.captured_tokens:
            try:
                return self._open_session(self._path, memory_limit=limit, captures=True)
            except FormatError as error:  # a node of it runs on the CPU
                log.info("no captured launches for %s: %s", self._path.parent.name, error.message)
        return self._open_session(self._path, memory_limit=limit, captures=False)

    def _run(self, run: "_Run", stage: Stage) -> RawOutput:
        device, wanted = self._line.device, run.wanted
        session = self._sessions[0]
        if run.layer:
            session = self._line.do(lambda: self._exit(run.layer))
        # Arrays are made here, in the worker's thread; the device's own begins copies and launches, and waits for none.
        filled = stage.fill(session, self._plan, run.shape, run.made)
        tensor = session.outputs[wanted.name]
        size, columns = SIZES[tensor.dtype], tensor.shape[-1] or self._plan.hidden_size
        host = stage.output(wanted.rows * wanted.columns * size)

        def begin() -> Any:  # noqa: ANN401 - an event
            if run.capture is not None:
                memory = run.capture.memory
                inputs, outputs = run.capture.inputs, run.capture.outputs
            else:
                memory = self._memory
                inputs = memory.inputs(session, filled.packing, run.shape, run.made.pages)
                outputs = memory.outputs(session, [wanted.name], run.shape)
            bound = copied_in(memory, inputs, filled)
            session.run(bound, list(outputs.values()), run.number)
            device.copy_out(
                host,
                outputs[wanted.name].address,
                rows=wanted.rows,
                width=wanted.columns * size,
                pitch=columns * size,
            )
            return device.record()

        self._line.wait(self._line.do(begin))
        found: FloatArray = (
            host.view(tensor.dtype).reshape(wanted.rows, wanted.columns).astype(np.float32)
        )
        return self._plan.result(run.batch, run.shape, found)

    def _exit(self, layer: int) -> DeviceSession:
        """The graph of an exit, opened when it is first asked for; in the device's thread."""
        if layer not in self._sessions:
            path = self._path.with_name(EXIT_GRAPH.format(layer))
            share = self._bytes * layer // max(self.layers, 1)
            try:
                self._line.ledger.take(self._owner, share, share)
            except ModelMemoryError as error:
                raise BackendMemoryError("an early exit's graph does not fit as well") from error
            self._sessions[layer] = self._open_session(path, memory_limit=0, captures=False)
        return self._sessions[layer]

    def _close(self) -> None:
        for session in self._sessions.values():
            session.close()
        for capture in self._captures.values():
            capture.memory.release()
        if hasattr(self, "_memory"):
            self._memory.release()


@dataclass(frozen=True, slots=True)
class _Run:
    """A batch as it is about to run.

    Attributes:
        layer: Number of the exit; 0 for the whole graph.
        capture: What starts it as one, if it was captured.
    """

    batch: Batch
    shape: Shape
    made: Feeds
    wanted: Wanted
    layer: int
    capture: Capture | None

    @property
    def number(self) -> int | None:
        """Of the capture."""
        return None if self.capture is None else self.capture.number
