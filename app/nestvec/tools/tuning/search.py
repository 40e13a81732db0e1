"""Searches for the fastest settings, one at a time.

Candidates are timed in turns, so that a slow moment of the machine hits all of them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nestvec.engine.backend import Backend
from nestvec.engine.types import Item
from nestvec.model_store.artefacts.execution_settings import ExecutionSettings
from nestvec.tools.tuning.workload import Clock, cut_batches, time_batches, typical_items

ROUNDS: Final = 3
# A candidate must beat the current choice by this factor: less is noise.
MIN_GAIN: Final = 1.02
BUDGETS: Final = (128, 256, 384, 512, 768, 1024, 2048)
PLAIN_ATTENTION: Final = (0, 64, 128, 256)
LONE_THREADS: Final = (1, 2, 4, 8)
GPU_BUDGETS: Final = (1024, 2048, 4096, 8192, 12_288, 16_384, 24_576, 32_768, 65_536)
GPU_WORKERS: Final = (1, 2, 3, 4)
# On a GPU the smallest budget with this share of the highest speed is taken: beyond the knee batches only get longer,
# and queries wait behind them.
KNEE: Final = 0.98
# Lone texts are timed on queries: texts of up to this many tokens.
LONE_TOKENS: Final = 64
LONE_ITEMS: Final = 40
# A first, small run tells how many tokens the others may have, within bounds.
FIRST_TOKENS: Final = 256
MIN_TOKENS: Final = 512
MAX_TOKENS: Final = 16_000
GPU_FIRST_TOKENS: Final = 16_384
GPU_MAX_TOKENS: Final = 2_000_000

# Opens the graph with some settings; the flag says whether threads inside a run busy-wait, as for lone texts.
OpenGraph = Callable[[ExecutionSettings, bool], Backend]
# Makes the candidates of a stage of the current choice.
MakeCandidates = Callable[[ExecutionSettings], list[ExecutionSettings]]


@dataclass(frozen=True, slots=True)
class CandidateTiming:
    """The speed of one candidate of a stage.

    Attributes:
        stage: "attention", "budget", "threads" or "lone".
        candidate: The settings that were timed.
        tokens_per_s: Tokens a second in its best round.
        is_chosen: Whether later stages and the server use it.
    """

    stage: str
    candidate: ExecutionSettings
    tokens_per_s: float
    is_chosen: bool = False


@dataclass(slots=True)
class SettingsSearch:
    """Searches for the settings with which one graph runs fastest.

    Attributes:
        open_graph: Opens the graph; each backend is closed after its stage.
        start: Settings to start from.
        has_attentions: Whether the graph has more than one attention to choose from.
        cpus: Number of usable CPUs.
        max_tokens: Most tokens that the model takes of one input.
        vocabulary_size: Number of the model's token ids.
        limit_s: Time for all stages, in seconds; a stage for which there is no time is left out.
        clock: Monotonic seconds.
        is_gpu: Whether the graph runs on a GPU: budgets are larger there, and the knee counts instead of the best.
        timings: Every candidate that was timed.
    """

    open_graph: OpenGraph
    start: ExecutionSettings
    has_attentions: bool
    cpus: int
    max_tokens: int
    vocabulary_size: int
    limit_s: float
    clock: Clock
    is_gpu: bool = False
    timings: list[CandidateTiming] = field(default_factory=list)

    def run(self) -> ExecutionSettings:
        """Find the best settings.

        Raises:
            BackendError: A batch failed.
            FormatError: The graph cannot be opened.
        """
        best, deadline = self.start, self.clock() + self.limit_s
        stages = list(_gpu_stages())
        if not self.is_gpu:
            stages = list(_stages(self.cpus, has_attentions=self.has_attentions))
        # Half of the time is for finding out how long a run takes, opening graphs, and noise.
        run_s = self.limit_s / 2 / ROUNDS / sum(len(make(best)) for _, make in stages)
        items = self._items(run_s)
        for stage, make in stages:
            candidates = make(best)
            if self.clock() + len(candidates) * run_s > deadline:
                break
            best = self._choose(stage, candidates, best, items, deadline)
        return best

    def _items(self, run_s: float) -> list[Item]:
        """Make as many items as take one run's time, judging by a small run."""
        first = GPU_FIRST_TOKENS if self.is_gpu else FIRST_TOKENS
        few = typical_items(first, self.max_tokens, self.vocabulary_size, seed=0)
        threads = self.start.worker_threads if self.is_gpu else self.cpus
        backend = self.open_graph(self.start, False)  # noqa: FBT003 - a callable type has no names
        try:
            batches = [few] * threads
            if self.is_gpu:
                batches = cut_batches(few * threads, backend, self.start.max_batch_tokens)
            time_batches(backend, batches, threads, self.clock)
            took_s = time_batches(backend, batches, threads, self.clock)
        finally:
            backend.close()
        tokens_per_s = threads * sum(item.tokens for item in few) / max(took_s, 1e-9)
        max_tokens = GPU_MAX_TOKENS if self.is_gpu else MAX_TOKENS
        tokens = min(max(int(tokens_per_s * run_s), MIN_TOKENS), max_tokens)
        return typical_items(tokens, self.max_tokens, self.vocabulary_size, seed=1)

    def _choose(
        self,
        stage: str,
        candidates: Sequence[ExecutionSettings],
        current: ExecutionSettings,
        items: Sequence[Item],
        deadline: float,
    ) -> ExecutionSettings:
        """Time the candidates in turns; the current one stays unless another is clearly faster."""
        took_s: dict[ExecutionSettings, float] = {}
        backends: dict[tuple[int, int], Backend] = {}
        is_lone = stage == "lone"
        lone = [item for item in items if item.tokens <= LONE_TOKENS][:LONE_ITEMS]
        chosen_items = lone if is_lone else items
        try:
            for turn in range(ROUNDS):
                if turn and self.clock() > deadline:
                    break
                for candidate in candidates:
                    settings = _alone(candidate) if is_lone else candidate
                    key = (settings.intra_op_threads, settings.plain_attention_tokens)
                    if key not in backends:
                        spins = is_lone and settings.intra_op_threads > 1
                        backends[key] = self.open_graph(settings, spins)
                        # The first run warms it up.
                        time_batches(backends[key], [items[:1]], 1, self.clock)
                    backend = backends[key]
                    budget = min(settings.max_batch_tokens, backend.info.max_cost)
                    batches = cut_batches(chosen_items, backend, budget)
                    seconds = time_batches(backend, batches, settings.worker_threads, self.clock)
                    took_s[candidate] = min(took_s.get(candidate, seconds), seconds)
        finally:
            for backend in backends.values():
                backend.close()
        fastest = min(took_s, key=lambda candidate: took_s[candidate])
        slowest_kept_s = took_s[fastest] * MIN_GAIN
        chosen = fastest if took_s.get(current, math.inf) > slowest_kept_s else current
        if self.is_gpu and stage == "budget":
            near = [
                candidate
                for candidate, seconds in took_s.items()
                if took_s[fastest] >= KNEE * seconds
            ]
            chosen = min(near, key=lambda candidate: candidate.max_batch_tokens)
        tokens = sum(item.tokens for item in chosen_items)
        self.timings += [
            CandidateTiming(stage, candidate, tokens / max(seconds, 1e-9), candidate == chosen)
            for candidate, seconds in took_s.items()
        ]
        return chosen


def _alone(candidate: ExecutionSettings) -> ExecutionSettings:
    """Return settings that run one text after the other, each with all the threads that a lone text gets."""
    return replace(
        candidate,
        max_batch_tokens=1,
        worker_threads=1,
        intra_op_threads=max(candidate.lone_threads, candidate.intra_op_threads),
    )


def _gpu_stages() -> Iterator[tuple[str, MakeCandidates]]:
    """Yield the stages on a GPU: how much it is given at once, and by how many workers."""
    yield "budget", lambda best: [replace(best, max_batch_tokens=n) for n in GPU_BUDGETS]
    yield (
        "threads",
        lambda best: list(
            dict.fromkeys([best, *(replace(best, worker_threads=n) for n in GPU_WORKERS)])
        ),
    )


def _stages(cpus: int, *, has_attentions: bool) -> Iterator[tuple[str, MakeCandidates]]:
    """Yield the name of each stage on CPUs and its candidates, the current choice always among them."""

    def with_current(
        best: ExecutionSettings, others: Sequence[ExecutionSettings]
    ) -> list[ExecutionSettings]:
        return list(dict.fromkeys([best, *others]))

    if has_attentions:
        yield (
            "attention",
            lambda best: with_current(
                best, [replace(best, plain_attention_tokens=n) for n in PLAIN_ATTENTION]
            ),
        )
    yield (
        "budget",
        lambda best: with_current(best, [replace(best, max_batch_tokens=n) for n in BUDGETS]),
    )
    if cpus > 1:
        splits = {(cpus, 1), (1, cpus), (max(1, cpus // 2), 1), (max(1, cpus // 2), 2)}
        yield (
            "threads",
            lambda best: with_current(
                best,
                [replace(best, worker_threads=w, intra_op_threads=i) for w, i in sorted(splits)],
            ),
        )
        yield (
            "lone",
            lambda best: with_current(
                best, [replace(best, lone_threads=n) for n in LONE_THREADS if n <= cpus]
            ),
        )
