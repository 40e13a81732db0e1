"""The report: what was promised, each with its figure or why there is none, then everything that was measured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.gpu.journal import Figures, Journal
from benchmarks.gpu.workshop import graphs_of
from benchmarks.models import BASE, DEBERTA, LARGE, MINILM, NOMIC, QWEN, Sizes

UNMEASURED: Final = "not measured"
MIN_COSINE: Final = 0.9999
MIN_PEER_RATIO: Final = 3.0
MIN_PADDED_RATIO: Final = 1.5
MIN_HTTP_SHARE: Final = 0.7
# The card counts as full from here on: what a model may take is filled in steps.
MIN_USED: Final = 0.93
# Allocators move a few pages over thousands of batches; a leak of page-locked memory is thousands of bytes a batch.
MAX_GROWTH_BYTES: Final = 1000
MAX_POINTS: Final = 0.1
LARGE_FIGURE: Final = 1000
# A figure, and whether it is good enough, None where nothing was promised; None where it was not measured.
Verdict = tuple[str, bool | None] | None


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that the check must show.

    Attributes:
        says: The promise, or the question.
        verdict: Reads its figure from the journal.
    """

    says: str
    verdict: Callable[[Journal], Verdict]


def _of(journal: Journal, sizes: Sizes, what: str) -> Figures | None:
    """Return a measurement of a model's serving graph."""
    return journal.find(sizes.name, graphs_of(sizes)[0].label, what)


def _fastest(journal: Journal, model: str, label: str) -> Figures | None:
    """Return the speed of a graph with the budget that suits it best."""
    found = [
        figures
        for about, figures in journal.figures()
        if (about.model, about.graph) == (model, label)
        and about.what.startswith("speed")
        and "error" not in figures
    ]
    return max(found, key=lambda figures: float(figures["tokens_per_s"]), default=None)


def _parity(journal: Journal) -> Verdict:
    found = [
        (figures["min_cosine"], f"{about.model} ({about.graph})")
        for about, figures in journal.figures()
        if about.what == "parity" and "error" not in figures
    ]
    if not found:
        return None
    cosine, worst = min(found)
    return (
        f"at least {cosine:.6f} in {len(found)} graphs, the least in {worst}",
        cosine >= MIN_COSINE,
    )


def _share(sizes: Sizes, least: float) -> Callable[[Journal], Verdict]:
    def verdict(journal: Journal) -> Verdict:
        fastest = _fastest(journal, sizes.name, graphs_of(sizes)[0].label)
        if fastest is None or not fastest["share"]:
            return None
        return f"{fastest['share']:.1%}", fastest["share"] >= least

    return verdict


def _against_peer(journal: Journal) -> Verdict:
    peer = journal.find(MINILM.name, "", "sentence-transformers")
    ours = _fastest(journal, MINILM.name, graphs_of(MINILM)[0].label)
    if peer is None or ours is None:
        return None
    ratio = ours["tokens_per_s"] / peer["tokens_per_s"]
    return f"{ratio:.1f} times", ratio >= MIN_PEER_RATIO


def _against_padded(journal: Journal) -> Verdict:
    for sizes in (BASE, MINILM):
        found = _of(journal, sizes, "padded")
        if found is not None:
            packed = found["packed_tokens_per_s"]
            by_length = packed / max(found["padded_sorted_tokens_per_s"], 1e-9)
            arrival = packed / max(found["padded_arrival_tokens_per_s"], 1e-9)
            says = f"{arrival:.2f} times in the order of arrival, {by_length:.2f} sorted by length"
            return f"{sizes.name}: {says}", arrival >= MIN_PADDED_RATIO
    return None


def _over_http(journal: Journal) -> Verdict:
    shares = []
    for sizes in (BASE, MINILM):
        engine, http = _of(journal, sizes, "engine"), journal.find(sizes.name, "", "http")
        if engine is not None and http is not None:
            share = http["tokens_per_s"] / engine["tokens_per_s"]
            client = f", the client took {http['client_cpu']:.2f} cores"
            shares.append((share, f"{sizes.name}: {share:.0%}{client}"))
    return (
        ("; ".join(says for _, says in shares), shares[0][0] >= MIN_HTTP_SHARE) if shares else None
    )


def _memory(journal: Journal) -> Verdict:
    found = next(
        (f for a, f in journal.figures() if a.what == "endurance" and "error" not in f), None
    )
    if found is None:
        return None
    says = (
        f"{found['batches']} batches, {found['shortages']} split, {found['failures']} failed, "
        f"at most {found['most_used']:.1%} of the card taken"
    )
    return says, not found["failures"] and found["most_used"] >= MIN_USED


def _leak(journal: Journal) -> Verdict:
    found = _of(journal, DEBERTA, "leak")
    if found is None:
        return None
    grown = found["growth_bytes"]
    return f"{grown:,.0f} bytes a batch over {found['batches']}", grown < MAX_GROWTH_BYTES


def _sts(journal: Journal) -> Verdict:
    gpu, cpu = (journal.find("default", "", provider) for provider in ("cuda", "cpu"))
    if gpu is None or cpu is None:
        return None
    points = 100 * (gpu["spearman"] - cpu["spearman"])
    return f"{100 * gpu['spearman']:.2f}, {points:+.2f} from the CPU", abs(points) <= MAX_POINTS


def _packed_and_paged(journal: Journal) -> Verdict:
    found = []
    for sizes in (NOMIC, QWEN):
        speeds = {}
        for graph in graphs_of(sizes):
            figures = _fastest(journal, sizes.name, graph.label)
            if figures is not None:
                speeds[graph.label] = f"{figures['tokens_per_s']:,.0f} ({graph.label})"
        if speeds:
            found.append(f"{sizes.name}: {', '.join(speeds.values())} tokens/s")
    return ("; ".join(found), None) if found else None


def _captured_and_plain(journal: Journal) -> Verdict:
    captured, plain = (_of(journal, MINILM, what) for what in ("captured", "plain"))
    if captured is None or plain is None:
        return None
    ratios = [
        f"{tokens}: {plain['batch_s'][tokens] / took_s:.2f}"
        for tokens, took_s in captured["batch_s"].items()
        if took_s and tokens in plain["batch_s"]
    ]
    return "times as fast at so many tokens: " + ", ".join(ratios), None


PROMISES: Final = (
    Promise("vectors: cosine with fp32 on the CPU at least 0.9999", _parity),
    Promise("STS-B within 0.1 points of the CPU's", _sts),
    Promise("bge-base-sized: at least 40 % of the dense peak", _share(BASE, 0.4)),
    Promise("bge-large-sized: at least 50 % of the dense peak", _share(LARGE, 0.5)),
    Promise("MiniLM: at least 3 times sentence-transformers in fp16", _against_peer),
    Promise("packed: at least 1.5 times padded on the mixed load", _against_padded),
    Promise("over HTTP at least 70 % of the engine", _over_http),
    Promise("no failure with 95 % of the memory taken", _memory),
    Promise("DeBERTa's batches leave no memory behind", _leak),
    Promise("packed or paged attention for Nomic and Qwen3?", _packed_and_paged),
    Promise("MiniLM's small batches captured against plain?", _captured_and_plain),
)


def promises(journal: Journal) -> Iterator[str]:
    """Yield a table of what was promised, with each figure, or that there is none."""
    yield "\n| promise | figure | kept |\n|---|---|---|"
    for promise in PROMISES:
        verdict = promise.verdict(journal)
        figure, is_kept = (UNMEASURED, None) if verdict is None else verdict
        kept = {None: "", True: "yes", False: "**no**"}[is_kept]
        yield f"| {promise.says} | {figure} | {kept} |"


def report(journal: Journal, title: Sequence[str]) -> Iterator[str]:
    """Yield the report's lines.

    Args:
        journal: What was measured.
        title: Lines that say where: the first is the heading.
    """
    yield f"# {title[0]}\n"
    yield from title[1:]
    yield from promises(journal)
    yield "\n## Everything that was measured\n"
    yield "| step | model | graph | what | figures |\n|---|---|---|---|---|"
    tables = []
    for about, figures in journal.figures():
        shown = {
            name: value for name, value in figures.items() if name not in ("kernels", "took_s")
        }
        words = ", ".join(f"{name} {_shown(value)}" for name, value in shown.items())
        yield f"| {about.step} | {about.model} | {about.graph} | {about.what} | {words.replace('|', '/')} |"
        if "kernels" in figures:
            tables.append((f"{about.model}, {about.graph}", figures["kernels"]))
    for label, rows in tables:
        yield f"\n## Kernels of a batch: {label}\n\n| kernel | share of the time | launches |\n|---|---|---|"
        for name, share, launches in rows:
            yield f"| `{name.replace('|', '/')}` | {share:.1%} | {launches} |"


def _shown(value: object) -> str:
    """Return a figure as it is read best."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= LARGE_FIGURE else f"{value:.5g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(each)}" for name, each in value.items()) + "}"
    return str(value)
