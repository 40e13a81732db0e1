"""One choice at a time, candidates timed in turns, so that a slow moment of the machine hits all of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nestvec.engine.backend import Backend
from nestvec.engine.types import Item
from nestvec.model_store.artefacts.execution_settings import Tuned
from nestvec.tools.tuning.workload import Clock, cut, seconds_for, typical_items

ROUNDS: Final = 3
# A candidate must beat the choice so far by this much: less is noise.
LEAST_GAIN: Final = 1.02
BUDGETS: Final = (128, 256, 384, 512, 768, 1024, 2048)
PLAIN_ATTENTION: Final = (0, 64, 128, 256)
LONE_THREADS: Final = (1, 2, 4, 8)
GPU_BUDGETS: Final = (1024, 2048, 4096, 8192, 12_288, 16_384, 24_576, 32_768, 65_536)
GPU_WORKERS: Final = (1, 2, 3, 4)
# The smallest budget that is nearly as fast as the fastest: beyond the knee batches only get longer, and queries wait.
KNEE: Final = 0.98
LONE_TOKENS: Final = 64  # texts up to this many: queries
LONE_ITEMS: Final = 40
FIRST_TOKENS: Final = 256
LEAST_TOKENS: Final = 512
MOST_TOKENS: Final = 16_000
GPU_FIRST_TOKENS: Final = 16_384
GPU_MOST_TOKENS: Final = 2_000_000

# Opens the graph as chosen; the flag says whether it is for lone texts.
Open = Callable[[Tuned, bool], Backend]


@dataclass(frozen=True, slots=True)
class Timing:
    """One candidate of a stage.

    Attributes:
        stage: "attention", "budget", "threads" or "lone".
        tokens_per_s: At its best round.
        is_chosen: Whether later stages and the server use it.
    """

    stage: str
    candidate: Tuned
    tokens_per_s: float
    is_chosen: bool = False


@dataclass(slots=True)
class Search:
    """Tunes one graph.

    Attributes:
        open_graph: Opens it; each backend is closed after its stage.
        start: What to start from.
        has_attentions: Whether the graph has more than one attention to choose from.
        cpus: Usable ones.
        max_tokens: The model's most for one input.
        vocabulary_size: Of the model.
        limit_s: Time for all stages; a stage that time does not allow for is left out.
        clock: Monotonic seconds.
        is_gpu: Whether it runs on one: other budgets, and a knee instead of a best.
    """

    open_graph: Open
    start: Tuned
    has_attentions: bool
    cpus: int
    max_tokens: int
    vocabulary_size: int
    limit_s: float
    clock: Clock
    is_gpu: bool = False
    timings: list[Timing] = field(default_factory=list)

    def run(self) -> Tuned:
        """Find the best choice.

        Raises:
            BackendError: A batch failed.
            FormatError: The graph cannot be opened.
        """
        best, deadline = self.start, self.clock() + self.limit_s
        stages = list(_gpu_stages())
        if not self.is_gpu:
            stages = list(_stages(self.cpus, has_attentions=self.has_attentions))
        # Half for finding out how long a run takes, opening graphs, and noise.
        run_s = self.limit_s / 2 / ROUNDS / sum(len(make(best)) for _, make in stages)
        items = self._items(run_s)
        for stage, make in stages:
            candidates = make(best)
            if self.clock() + len(candidates) * run_s > deadline:
                break
            best = self._choose(stage, candidates, best, items, deadline)
        return best

    def _items(self, run_s: float) -> list[Item]:
        """As many as one run may take, told from a small one."""
        first = GPU_FIRST_TOKENS if self.is_gpu else FIRST_TOKENS
        few = typical_items(first, self.max_tokens, self.vocabulary_size, seed=0)
        threads = self.start.worker_threads if self.is_gpu else self.cpus
        backend = self.open_graph(self.start, False)  # noqa: FBT003 - a callable type has no names
        try:
            batches = [few] * threads
            if self.is_gpu:
                batches = cut(few * threads, backend, self.start.max_batch_tokens)
            seconds_for(backend, batches, threads, self.clock)
            took_s = seconds_for(backend, batches, threads, self.clock)
        finally:
            backend.close()
        tokens_per_s = threads * sum(item.tokens for item in few) / max(took_s, 1e-9)
        most = GPU_MOST_TOKENS if self.is_gpu else MOST_TOKENS
        tokens = min(max(int(tokens_per_s * run_s), LEAST_TOKENS), most)
        return typical_items(tokens, self.max_tokens, self.vocabulary_size, seed=1)

    def _choose(
        self,
        stage: str,
        candidates: Sequence[Tuned],
        current: Tuned,
        items: Sequence[Item],
        deadline: float,
    ) -> Tuned:
        """Time the candidates in turns; the current one stays unless another is clearly faster."""
        took: dict[Tuned, float] = {}
        backends: dict[tuple[int, int], Backend] = {}
        is_lone = stage == "lone"
        lone = [item for item in items if item.tokens <= LONE_TOKENS][:LONE_ITEMS]
        chosen_items = lone if is_lone else items
        try:
            for turn in range(ROUNDS):
                if turn and self.clock() > deadline:
                    break
                for candidate in candidates:
                    how = _alone(candidate) if is_lone else candidate
                    key = (how.intra_op_threads, how.plain_attention_tokens)
                    if key not in backends:
                        backends[key] = self.open_graph(how, is_lone and how.intra_op_threads > 1)
                        seconds_for(backends[key], [items[:1]], 1, self.clock)  # warm
                    backend = backends[key]
                    budget = min(how.max_batch_tokens, backend.max_cost)
                    batches = cut(chosen_items, backend, budget)
                    seconds = seconds_for(backend, batches, how.worker_threads, self.clock)
                    took[candidate] = min(took.get(candidate, seconds), seconds)
        finally:
            for backend in backends.values():
                backend.close()
        fastest = min(took, key=lambda candidate: took[candidate])
        slowest_kept = took[fastest] * LEAST_GAIN
        chosen = fastest if took.get(current, math.inf) > slowest_kept else current
        if self.is_gpu and stage == "budget":
            near = [one for one, seconds in took.items() if took[fastest] >= KNEE * seconds]
            chosen = min(near, key=lambda one: one.max_batch_tokens)
        tokens = sum(item.tokens for item in chosen_items)
        self.timings += [
            Timing(stage, candidate, tokens / max(seconds, 1e-9), candidate == chosen)
            for candidate, seconds in took.items()
        ]
        return chosen


def _alone(candidate: Tuned) -> Tuned:
    """One text after the other, each with all the threads that a lone one gets."""
    return replace(
        candidate,
        max_batch_tokens=1,
        worker_threads=1,
        intra_op_threads=max(candidate.lone_threads, candidate.intra_op_threads),
    )


def _gpu_stages() -> Iterator[tuple[str, Callable[[Tuned], list[Tuned]]]]:
    """Likewise on a GPU: how much it is given at once, and by how many."""
    yield "budget", lambda best: [replace(best, max_batch_tokens=n) for n in GPU_BUDGETS]
    yield (
        "threads",
        lambda best: list(
            dict.fromkeys([best, *(replace(best, worker_threads=n) for n in GPU_WORKERS)])
        ),
    )


def _stages(
    cpus: int, *, has_attentions: bool
) -> Iterator[tuple[str, Callable[[Tuned], list[Tuned]]]]:
    """Names of the stages and what each makes of the choice so far; the current choice is always among them."""

    def with_current(best: Tuned, others: Sequence[Tuned]) -> list[Tuned]:
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
