"""The steps of the check, in the order in which they tell most; each works without the others."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from nestvec.backends.cuda.buffers import Device
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Item
from nestvec.tools.diagnostics.device_run import run_in_subprocess
from nestvec.tools.tuning.workload import cut_batches

from benchmarks.gpu import endurance, outside, parts
from benchmarks.gpu.bench import CAPTURED_TOKENS, Bench, Subject, opened
from benchmarks.gpu.journal import Measurement
from benchmarks.gpu.kernels import kernel_table
from benchmarks.gpu.workshop import Graph, graphs_of, pooler_of
from benchmarks.models import DEBERTA, VOCABULARY, Sizes

GIB: Final = 2**30
# Sizes of batches, in tokens, around those up to which launches may be captured.
SMALL_BATCHES: Final = (16, 64, 256, 512, 1024, 2048, 4096)
HTTP_TEXT_TOKENS: Final = 256
HTTP_PROCESSES: Final = 4
LEAK_LENGTHS: Final = (100, 30, 60, 128)


def first(bench: Bench) -> None:
    """Whether anything works: one small model, right and fast, alone and in batches."""
    sizes = bench.models[0]
    graph = graphs_of(sizes)[0]
    with opened(bench, "first", sizes, graph) as subject:
        if subject is not None:
            subject.measure("parity", subject.parity)
            subject.measure("latency", subject.latency)
            bench.journal.measure(Measurement("first", "", "", "peak"), outside.dense_peak)
            subject.measure(
                f"speed {bench.usual_budget}", partial(subject.speed, bench.usual_budget)
            )
    with opened(bench, "first", sizes, graph, "open plain", captured_tokens=0) as plain:
        if plain is not None:
            plain.measure("latency plain", plain.latency)


def encoders(bench: Bench) -> None:
    """Encoders of BERT's kind: right, and what share of the card they use."""
    for sizes in bench.encoders:
        _right_and_fast(bench, "encoders", sizes, graphs_of(sizes)[0], bench.budgets)


def routes(bench: Bench) -> None:
    """Rotary encoders and decoders by each attention: which is right, and which is faster."""
    for sizes in bench.models:
        if sizes.family != "bert":
            for graph in graphs_of(sizes):
                _right_and_fast(bench, "routes", sizes, graph, [bench.usual_budget])


def _right_and_fast(
    bench: Bench, step: str, sizes: Sizes, graph: Graph, budgets: Sequence[int]
) -> None:
    with opened(bench, step, sizes, graph) as subject:
        if subject is None:
            return
        for budget in budgets:
            subject.measure(f"speed {budget}", partial(subject.speed, budget))
        # Last, as another process may still be making the reference.
        subject.measure("parity", subject.parity)


def kernels(bench: Bench) -> None:
    """Where the time goes: the kernels of a usual batch of each model."""
    for sizes in bench.models:
        for graph in graphs_of(sizes)[:2]:
            with opened(bench, "kernels", sizes, graph) as subject:
                if subject is not None:
                    subject.measure("kernels", partial(_kernels_of, subject))


def _kernels_of(subject: Subject) -> dict[str, Any]:
    bench, backend, pooler = subject.bench, subject.backend, pooler_of(subject.sizes)
    items = bench.items(subject.sizes, 2 * bench.usual_budget)
    batch = cut_batches(items, backend, min(bench.usual_budget, backend.info.max_cost))[0]
    took_s = parts.batch_s(backend, batch, 5, time.perf_counter)
    table = kernel_table(lambda: raw_vectors(backend, batch, pooler))
    return {"batch_s": took_s, "tokens": sum(item.tokens for item in batch), **table}


def captures(bench: Bench) -> None:
    """Small batches with launches captured, where that was found to pay, and without."""
    for sizes in bench.encoders[:2]:
        graph = graphs_of(sizes)[0]
        for captured, name in ((CAPTURED_TOKENS, "captured"), (0, "plain")):
            with opened(
                bench, "captures", sizes, graph, f"open {name}", captured_tokens=captured
            ) as subject:
                if subject is not None:
                    subject.measure(name, partial(_small_batches, subject))


def _small_batches(subject: Subject) -> dict[str, Any]:
    bench, seconds = subject.bench, {}
    sizes = [size for size in SMALL_BATCHES if size <= max(bench.budgets)]
    # Just above the size before, and exactly of it: padded most, and not at all.
    for tokens in (n for size in sizes for n in (size // 2 + 1, size)):
        length = min(tokens, 64)
        items = parts.items_of_length(max(tokens // length, 1), length, VOCABULARY, 5)
        runs = max(bench.runs // 15, 1)
        seconds[str(tokens)] = parts.batch_s(subject.backend, items, runs, time.perf_counter)
    return {"batch_s": seconds}


def padded(bench: Bench) -> None:
    """Packed against padded batches, on the mixed load, by the same kernels."""
    sizes = bench.encoders[min(1, len(bench.encoders) - 1)]
    with opened(bench, "padded", sizes, graphs_of(sizes)[0]) as subject:
        if subject is not None:
            subject.measure("padded", partial(_packed_and_padded, subject))


def _packed_and_padded(subject: Subject) -> dict[str, Any]:
    bench, backend = subject.bench, subject.backend
    items, budget = bench.items(subject.sizes, bench.tokens // 2), max(bench.budgets)
    packed = parts.speed(backend, items, bench.usual_budget, subject.sizes, 0.0).tokens_per_s
    by_length, arrival = (
        parts.padded_tokens_per_s(backend, items, budget, is_sorted=is_sorted)
        for is_sorted in (True, False)
    )
    return {
        "packed_tokens_per_s": packed,
        "padded_sorted_tokens_per_s": by_length,
        "padded_arrival_tokens_per_s": arrival,
    }


def http(bench: Bench) -> None:
    """The whole server over HTTP, against the engine alone on texts of the same length."""
    for sizes in bench.encoders[:2]:
        length = min(HTTP_TEXT_TOKENS, sizes.max_tokens)
        with opened(bench, "http", sizes, graphs_of(sizes)[0]) as subject:
            if subject is not None:
                subject.measure("engine", partial(_engine_on, subject, length))
        server = outside.HttpServer(
            bench.workshop.folder(sizes), HTTP_PROCESSES, bench.out / f"http-{sizes.name}.log"
        )
        seconds = min(bench.seconds, 15.0)
        about = Measurement("http", sizes.name, "", "http")
        bench.journal.measure(about, partial(outside.http_tokens_per_s, server, length, seconds))


def _engine_on(subject: Subject, length: int) -> dict[str, Any]:
    count = max(subject.bench.tokens // length, 1)
    items = parts.items_of_length(count, length, VOCABULARY, 7)
    return asdict(
        parts.speed(subject.backend, items, subject.bench.usual_budget, subject.sizes, 0.0)
    )


def peer(bench: Bench) -> None:
    """sentence-transformers in fp16 on the same lengths."""
    for sizes in bench.encoders[:2]:
        about = Measurement("peer", sizes.name, "", "sentence-transformers")
        folder, tokens = bench.workshop.folder(sizes), bench.tokens // 4
        bench.journal.measure(about, partial(outside.peer_tokens_per_s, folder, sizes, tokens))


def memory(bench: Bench) -> None:
    """Batches of adversarial lengths on a card of which 95 % are taken."""
    sizes = bench.encoders[min(1, len(bench.encoders) - 1)]
    graph = graphs_of(sizes)[0]
    weights = sum(
        file.stat().st_size for file in bench.workshop.graph(sizes, graph).parent.iterdir()
    )
    device, budget = bench.device(), 8 * max(bench.budgets)
    with (
        endurance.filled(weights + 2 * GIB, device) as share,
        opened(
            bench, "memory", sizes, graph, memory_share=share, max_batch_tokens=budget
        ) as subject,
    ):
        if subject is not None:
            subject.measure("endurance", partial(_endurance_of, subject, budget, device))


def _endurance_of(subject: Subject, budget: int, device: Device) -> dict[str, Any]:
    backend, bench = subject.backend, subject.bench
    load = min(1.5 * backend.info.max_cost, 4.0 * budget)
    longest = subject.sizes.max_tokens
    result = asdict(endurance.endure(backend, longest, VOCABULARY, load, bench.seconds, device))
    return {**result, "failed_as": sorted(result["failed_as"]), "max_cost": backend.info.max_cost}


def leak(bench: Bench) -> None:
    """What batches of DeBERTa leave in page-locked memory; its attention has products of unusual strides."""
    with opened(bench, "leak", DEBERTA, Graph()) as subject:
        if subject is not None:
            items = [
                item
                for n, length in enumerate(LEAK_LENGTHS)
                for item in parts.items_of_length(8, length, VOCABULARY, n)
            ]
            subject.measure("leak", partial(_growth_of, subject, items))


def _growth_of(subject: Subject, items: list[Item]) -> dict[str, Any]:
    backend, batches = subject.backend, subject.bench.batches
    batch = cut_batches(items, backend, min(subject.bench.usual_budget, backend.info.max_cost))[0]
    grown = endurance.growth_bytes(backend, batch, batches)
    return {"growth_bytes": grown, "batches": batches, "inputs": len(batch)}


def sts(bench: Bench) -> None:
    """STS-B with the default model, from texts to vectors; only where both are there."""
    for provider in ("cuda", "cpu"):
        about = Measurement("sts", "default", "", provider)
        bench.journal.measure(about, partial(outside.sts_correlation, bench.sts, provider))


def nodes(bench: Bench) -> None:
    """Where every node of every graph ran, by onnxruntime's own profile, and which attention kernel was chosen."""
    for sizes in bench.models:
        for graph in graphs_of(sizes):
            about = Measurement("nodes", sizes.name, graph.label, "nodes")
            bench.journal.measure(about, partial(_nodes_of, bench, sizes, graph))


def _nodes_of(bench: Bench, sizes: Sizes, graph: Graph) -> dict[str, Any]:
    run = run_in_subprocess(bench.workshop.graph(sizes, graph), sizes.max_tokens, 0, os.environ)
    used = sorted({f"{k.op} {k.dtype}: {k.kernel}" for k in run.attention_kernels})
    return {"problems": run.problems, "attention": used, "captured": run.captured}


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the check.

    Attributes:
        run: Measures.
        budget_s: How long its process may take, its start included.
    """

    run: Callable[[Bench], None]
    budget_s: float


STEPS: Final[Mapping[str, Step]] = {
    "first": Step(first, 60),
    "encoders": Step(encoders, 90),
    "routes": Step(routes, 120),
    "kernels": Step(kernels, 90),
    "captures": Step(captures, 40),
    "http": Step(http, 150),
    "padded": Step(padded, 45),
    "peer": Step(peer, 90),
    "memory": Step(memory, 100),
    "leak": Step(leak, 60),
    "sts": Step(sts, 90),
    "nodes": Step(nodes, 120),
}
