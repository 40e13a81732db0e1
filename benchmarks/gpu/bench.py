"""What the steps of the check share: models, graphs opened, and where what is measured goes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.backends.cuda.buffers import Device
from nestvec.backends.cuda.runtime import CudaDevice
from nestvec.engine.backend import Backend, BackendFactory, BackendOptions, DeviceOptions
from nestvec.engine.types import Item, Layout
from nestvec.tools.tuning.workload import typical_items

from benchmarks.gpu import parts
from benchmarks.gpu.journal import Journal, Measurement
from benchmarks.gpu.workshop import Graph, Workshop, pooler_of
from benchmarks.models import VOCABULARY, Sizes

CAPTURED_TOKENS: Final = 4096


@dataclass(slots=True)
class Bench:
    """What the steps measure, and with what.

    Attributes:
        workshop: Makes models and graphs.
        journal: Takes what is measured.
        open_backend: Opens graphs.
        models: Models to measure, the one that tells first in front.
        out: Folder for logs.
        tokens: Tokens of a load.
        budgets: Budgets to measure the speed with, in tokens, rising; the last but one is the usual one.
        seconds: How long the part about memory and each load over HTTP last.
        batches: Number of batches that must leave no memory behind.
        runs: Number of runs of a lone text.
        sts: The test split of STS-B.
        device: Gives the card, for its memory.
    """

    workshop: Workshop
    journal: Journal
    open_backend: BackendFactory
    models: Sequence[Sizes]
    out: Path
    tokens: int = 400_000
    budgets: Sequence[int] = (4096, 16_384, 32_768)
    seconds: float = 60.0
    batches: int = 2000
    runs: int = 300
    sts: Path = Path("data/stsb/test.tsv")
    device: Callable[[], Device] = field(default=CudaDevice)

    @property
    def usual_budget(self) -> int:
        """The budget of steps that measure at one only."""
        return self.budgets[-2]

    @property
    def encoders(self) -> list[Sizes]:
        """The models of BERT's kind."""
        return [sizes for sizes in self.models if sizes.family == "bert"]

    def items(self, sizes: Sizes, tokens: int = 0) -> list[Item]:
        """Return a retrieval server's mix of inputs."""
        return typical_items(
            tokens or self.tokens,
            sizes.max_tokens,
            VOCABULARY,
            seed=1,
            longest=parts.LONGEST_TOKENS,
        )

    def open(self, sizes: Sizes, graph: Graph, **options: Any) -> Backend:
        """Open a graph for a GPU; options are those of `DeviceOptions` and "memory_share"."""
        share = options.pop("memory_share", 0.95)
        device = DeviceOptions(
            sizes.max_tokens,
            **{
                "max_batch_tokens": max(self.budgets),
                "captured_tokens": CAPTURED_TOKENS,
                **options,
            },
        )
        path = self.workshop.graph(sizes, graph)
        chosen = BackendOptions(provider="cuda", device=device, memory_share=share)
        return self.open_backend(path, Layout.PACKED, chosen)


@dataclass(frozen=True, slots=True)
class Subject:
    """A graph of a model, opened, in a step.

    Attributes:
        bench: Takes what is measured.
        step: Name of the step.
        sizes: The model.
        graph: Its graph.
        backend: Runs it.
    """

    bench: Bench
    step: str
    sizes: Sizes
    graph: Graph
    backend: Backend

    def measure(self, what: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure something, whatever comes of it."""
        about = Measurement(self.step, self.sizes.name, self.graph.label, what)
        self.bench.journal.measure(about, work)

    def parity(self) -> dict[str, Any]:
        """Compare the graph's vectors with those of the fp32 graph on the CPU."""
        expected = self.bench.workshop.reference(self.sizes)
        items = self.bench.workshop.parity_items(self.sizes)
        return asdict(parts.parity(self.backend, expected, pooler_of(self.sizes), items))

    def speed(self, budget: int) -> dict[str, Any]:
        """Measure tokens a second, and the share of the dense peak where that is known."""
        peak = self.bench.journal.find("", "", "peak") or {"operations_per_s": 0.0}
        items = self.bench.items(self.sizes)
        return asdict(
            parts.speed(self.backend, items, budget, self.sizes, peak["operations_per_s"])
        )

    def latency(self) -> dict[str, Any]:
        """Measure a lone text of 16 tokens."""
        item = parts.items_of_length(1, 16, VOCABULARY, 3)[0]
        p50_s, p99_s = parts.latency_s(self.backend, pooler_of(self.sizes), item, self.bench.runs)
        return {"p50_s": p50_s, "p99_s": p99_s}


@contextmanager
def opened(
    bench: Bench, step: str, sizes: Sizes, graph: Graph, name: str = "open", **options: Any
) -> Iterator[Subject | None]:
    """Open a graph and yield it; None where it cannot be opened, which is written down."""
    backends: list[Backend] = []

    def work() -> dict[str, Any]:
        backends.append(bench.open(sizes, graph, **options))
        shapes = getattr(backends[0], "captured_shapes", ())
        tokens = [getattr(shape, "tokens", 0) for shape in shapes]
        return {"captured_tokens": tokens, "max_cost": backends[0].info.max_cost}

    about = Measurement(step, sizes.name, graph.label, name)
    figures = bench.journal.measure(about, work)
    if figures is not None and not backends:
        # An earlier process opened it, measured a part, and ended.
        backends.append(bench.open(sizes, graph, **options))
    try:
        yield Subject(bench, step, sizes, graph, backends[0]) if backends else None
    finally:
        for backend in backends:
            backend.close()
