"""One simulated server: the engine's own policy on a virtual clock, with workers and an event loop that share cores."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from nestvec.engine.core.batching.batching_policy import BatchingOptions, BatchingPolicy
from nestvec.engine.core.batching.cost_model import BatchSeconds
from nestvec.engine.core.batching.dispatcher import Assignment
from nestvec.engine.types import Item, ItemOptions, Priority, Submission
from nestvec.errors import QueueFullError
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.cores import Cores, SerialThread
from nestvec.tools.planning.virtual_clock import VirtualClock

# What a request takes the event loop before it is queued: reading, parsing, tokenizing. The rest is its answer.
FRONT_SHARE_BEFORE: Final = 0.5
OPTIONS: Final = {priority: ItemOptions(priority=priority) for priority in Priority}
IDS: Final = np.zeros(1 << 16, np.int32)


@dataclass(slots=True, eq=False)
class SimulatedRequest:
    """A request on its way.

    Attributes:
        number: Which it is, from 0.
        arrived_s: When its caller sent it.
        lengths: Tokens of each of its texts.
        priority: Its scheduling class.
        tries: How often it was sent to a server.
        answered_s: When its answer was there; None before.
        was_refused: Whether it was refused in the end.
    """

    number: int
    arrived_s: float
    lengths: tuple[int, ...]
    priority: Priority = Priority.INTERACTIVE
    tries: int = 0
    answered_s: float | None = None
    was_refused: bool = False
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        """Count its tokens."""
        self.tokens = sum(self.lengths)


class SimulatedBatch(NamedTuple):
    """A batch that a worker ran.

    Attributes:
        ended_s: When it was done.
        run_s: Seconds that it took.
        tokens: Tokens of its texts.
    """

    ended_s: float
    run_s: float
    tokens: float


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """How a simulated server runs.

    Attributes:
        coefficients: What its machine and model cost.
        max_batch_tokens: Budget of a batch.
        max_batch_s: Batches are cut so as not to take longer.
        max_queue_tokens: Tokens that may wait.
        max_queue_wait_s: How long a call may wait.
        lookahead_items: How far the scheduler looks to sort by length.
        client_send_s: Core seconds of a load generator on the same machine for sending a request; 0: elsewhere.
        client_receive_s: The same for its answer.
    """

    coefficients: MachineCoefficients
    max_batch_tokens: int
    max_batch_s: float = 0.25
    max_queue_tokens: int = 500_000
    max_queue_wait_s: float = 20.0
    lookahead_items: int = 1024
    client_send_s: float = 0.0
    client_receive_s: float = 0.0

    def batching(self) -> BatchingOptions:
        """Return how it queues and batches."""
        machine = self.coefficients
        return BatchingOptions(
            machine.workers,
            self.max_batch_tokens,
            self.lookahead_items,
            self.max_queue_tokens,
            self.max_queue_wait_s,
            self.max_batch_s,
            first_token_s=machine.batch.seconds.of(128, 0) / 128,
        )


@dataclass(slots=True, eq=False)
class Replica:
    """A server. What ends a request calls `answered`, `refused` or, where the server dies, `lost`.

    Attributes:
        clock: The virtual time.
        options: How it runs.
        chooser: Draws how batches differ from what they take on average, and retry times.
        answered: Called with each request that was answered.
        refused: Called with each request that its queue refused.
        is_ready: Whether it takes requests.
        is_alive: Whether it answers those that it has.
        in_flight: The requests that it has.
        policy: What decides about its batches: the engine's own.
        cores: What its threads run on.
        front: The thread that speaks HTTP.
        batches: The batches that its workers ran, in order of their ends.
    """

    clock: VirtualClock
    options: ReplicaOptions
    chooser: random.Random
    answered: Callable[[SimulatedRequest], None]
    refused: Callable[[SimulatedRequest], None]
    is_ready: bool = True
    is_alive: bool = True
    in_flight: dict[int, SimulatedRequest] = field(default_factory=dict)
    policy: BatchingPolicy = field(init=False)
    cores: Cores = field(init=False)
    front: SerialThread = field(init=False)
    batches: list[SimulatedBatch] = field(default_factory=list)
    _client: SerialThread = field(init=False)
    _woken: int = 0  # workers that will take a batch in a moment
    _is_priority_woken: bool = False
    _missing: dict[int, int] = field(default_factory=dict)
    _predicted_s: dict[int, tuple[float, float]] = field(default_factory=dict)
    _times: tuple[BatchSeconds, BatchSeconds] = field(init=False)

    def __post_init__(self) -> None:
        """Start with an empty queue and nothing learned, as a server does."""
        machine = self.options.coefficients
        self.policy = BatchingPolicy.of(
            machine.pricing.cost(), self.options.batching(), chooser=self.chooser
        )
        self.cores = Cores(self.clock, machine.cores, machine.slowdown)
        self.front = SerialThread(self.cores, machine.front.wake_s)
        self._client = SerialThread(self.cores)
        self._times = machine.batch.seconds, machine.lone.seconds

    @property
    def batch_s(self) -> float:
        """Seconds that workers ran batches, added up."""
        return sum(batch.run_s for batch in self.batches)

    @property
    def queue_s(self) -> float:
        """Seconds of work that wait, as `nestvec_queue_seconds` tells it."""
        return self.policy.admission.waiting_s()

    def submit(self, request: SimulatedRequest) -> None:
        """Take a request."""
        self.in_flight[request.number] = request
        if self.options.client_send_s:
            self._client.run(self.options.client_send_s, lambda: self._read(request))
        else:
            self._read(request)

    def die(self) -> list[SimulatedRequest]:
        """End at once, and return the requests that have lost their connections."""
        self.is_alive = self.is_ready = False
        lost = list(self.in_flight.values())
        self.in_flight.clear()
        return lost

    def _front_s(self, request: SimulatedRequest) -> float:
        front = self.options.coefficients.front
        return front.of(len(request.lengths), request.tokens)

    def _read(self, request: SimulatedRequest) -> None:
        work_s = FRONT_SHARE_BEFORE * self._front_s(request)
        wait_s = self.options.coefficients.front.wait_s
        self.front.run(work_s, lambda: self.clock.after(wait_s, lambda: self._queue(request)))

    def _queue(self, request: SimulatedRequest) -> None:
        """Admit a request and queue its items, or refuse it."""
        if not self.is_alive:
            return
        items = tuple(Item(IDS[:n], index) for index, n in enumerate(request.lengths))
        submission = Submission(OPTIONS[request.priority], items)
        now_s = self.clock.now_s
        try:
            predicted_s = self.policy.admission.admit(submission, now_s)
        except QueueFullError:
            del self.in_flight[request.number]
            self.refused(request)
            return
        if predicted_s:
            self._predicted_s[request.number] = predicted_s, now_s
        self._missing[request.number] = len(items)
        self.policy.dispatcher.add(request.number, submission, now_s)
        self._wake()

    def _wake(self) -> None:
        """Wake workers for what they may take."""
        dispatcher, machine = self.policy.dispatcher, self.options.coefficients
        busy = self._woken + dispatcher.busy - dispatcher.is_priority_busy
        for _ in range(machine.workers - busy if dispatcher.has_work() else 0):
            self._woken += 1
            self.clock.after(machine.dispatch_s, self._take)
        is_free = not (dispatcher.is_priority_busy or self._is_priority_woken)
        if is_free and dispatcher.has_work(is_priority=True):
            self._is_priority_woken = True
            self.clock.after(machine.dispatch_s, self._take_priority)

    def _take(self) -> None:
        """Let a worker take a batch, if it is still there."""
        self._woken -= 1
        if self.policy.dispatcher.has_work():
            self._run(self.policy.dispatcher.take(self.clock.now_s))

    def _take_priority(self) -> None:
        """Let the worker for what comes first take a batch, if it is still there."""
        self._is_priority_woken = False
        if self.policy.dispatcher.has_work(is_priority=True):
            self._run(self.policy.dispatcher.take(self.clock.now_s, is_priority=True))

    def _run(self, assignment: Assignment) -> None:
        """Run a batch."""
        machine, entries = self.options.coefficients, assignment.batch.entries
        tokens, area = self.policy.size(entries)
        is_wide = assignment.is_lone and machine.lone_threads > 1
        work_s = self._times[is_wide].of(tokens, area)
        # Batches were timed one behind the other. On a machine that is idle at times they run slower: cores must be
        # woken, and caches have been taken by others.
        work_s *= 1.0 + machine.idle_slowdown * self.cores.idle_share()
        if machine.noise:
            # The mean stays: what was measured is the mean.
            work_s *= self.chooser.lognormvariate(-(machine.noise**2) / 2, machine.noise)
        begun_s = self.clock.now_s
        self.cores.run(
            work_s,
            lambda: self._ran(assignment, begun_s, tokens),
            threads=machine.lone_threads if is_wide else 1,
        )

    def _ran(self, assignment: Assignment, begun_s: float, tokens: float) -> None:
        """Learn from a batch, answer what is complete, and go on."""
        if not self.is_alive:
            return
        now_s = self.clock.now_s
        self.batches.append(SimulatedBatch(now_s, now_s - begun_s, tokens))
        self.policy.learn_batch(assignment.batch.entries, now_s - begun_s)
        for entry in assignment.batch.entries:
            left = self._missing[entry.call_id] = self._missing[entry.call_id] - 1
            if not left:
                self._complete(entry.call_id)
        self.policy.dispatcher.done(assignment)
        self.policy.learn_turn(assignment, now_s)
        self._wake()

    def _complete(self, number: int) -> None:
        """Write the answer of a request whose vectors are all there."""
        del self._missing[number]
        request = self.in_flight[number]
        if number in self._predicted_s:
            predicted_s, queued_s = self._predicted_s.pop(number)
            took_s = self.clock.now_s - queued_s
            self.policy.admission.learn(request.priority, predicted_s, took_s)
        work_s = (1 - FRONT_SHARE_BEFORE) * self._front_s(request)
        self.front.run(work_s, lambda: self._send(request))

    def _send(self, request: SimulatedRequest) -> None:
        if self.options.client_receive_s:
            self._client.run(self.options.client_receive_s, lambda: self._answer(request))
        else:
            self._answer(request)

    def _answer(self, request: SimulatedRequest) -> None:
        if not self.is_alive:
            return
        del self.in_flight[request.number]
        request.answered_s = self.clock.now_s
        self.answered(request)
