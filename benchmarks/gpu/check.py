"""Everything that needs a GPU, in one run: parity, speed, memory, HTTP; writes benchmarks/results/<gpu>.md.

Usage: python -m benchmarks.gpu.check [--models minilm-l6,bge-base] [--parts parity,speed,…] [--seconds 240]
Other cards' and peers' figures are ratios within this run.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nestvec.assembly.execution import machine
from nestvec.backends.open import gpus, open_backend
from nestvec.engine.backend import Backend, BackendFactory, BackendOptions, DeviceOptions
from nestvec.engine.types import Item, Layout
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import NestvecError
from nestvec.export.architectures import export_graph
from nestvec.export.device_graph import DeviceRecipe, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceRoute
from nestvec.tools.diagnostics.device_run import run_apart
from nestvec.tools.tuning.workload import typical_items

from benchmarks.gpu import parts
from benchmarks.gpu.models import ALL, VOCABULARY, Sizes, write_model
from benchmarks.gpu.outside import http_tokens_per_s, peer_tokens_per_s, sts_correlation

PARTS: Final = ("nodes", "parity", "speed", "padded", "latency", "memory", "peer", "http", "sts")
BUDGETS: Final = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
HTTP_PROCESSES: Final = (1, 4, 8)
RESULTS: Final = Path(__file__).parent.parent / "results"
DENSE: Final = 8192


@dataclass(slots=True)
class Check:
    """One run.

    Attributes:
        work: Folder for models and graphs.
        open_backend: Opens graphs; on a GPU by default.
        parts: Which of `PARTS`.
        tokens: Of a load.
        texts: For parity.
        seconds: For the memory part.
        peak: Operations a second of a large half-precision product here; 0 where unknown.
    """

    work: Path
    open_backend: BackendFactory
    parts: Sequence[str] = PARTS
    tokens: int = 400_000
    texts: int = 500
    seconds: float = 240.0
    peak: float = 0.0
    budgets: Sequence[int] = BUDGETS

    def of_model(self, sizes: Sizes) -> Iterator[str]:
        """Lines of a model's part of the report."""
        folder = write_model(sizes, self.work / sizes.name)
        config = json.loads((folder / "config.json").read_text())
        yield f"\n## {sizes.name}\n"
        yield (
            f"{sizes.hidden} wide, {sizes.layers} layers, {sizes.weights_a_token / 1e6:,.0f} M weights a token, "
            f"up to {sizes.max_tokens} tokens; random weights.\n"
        )
        pooling = "last_token" if sizes.key_heads else "mean"
        recipes = [DeviceRecipe(pooling=pooling)]
        if sizes.key_heads or sizes.has_rotary:
            recipes.append(DeviceRecipe(route=DeviceRoute.PACKED, pooling=pooling))
            recipes.append(DeviceRecipe(FloatType.BF16, pooling=pooling))
        for number, recipe in enumerate(recipes):
            label = f"{recipe.floats}, {recipe.route}"
            path = self.work / f"{sizes.name}-{number}" / "model.onnx"
            path.parent.mkdir(exist_ok=True)
            try:
                export_device_graph(folder, config, path, recipe)
                yield from self._of_graph(sizes, folder, config, path, label)
            except NestvecError as error:
                yield f"- {label}: FAILED: {error.message} ({error.__cause__ or ''})"

    def _of_graph(
        self, sizes: Sizes, folder: Path, config: dict[str, Any], path: Path, label: str
    ) -> Iterator[str]:
        most = max(self.budgets)
        outputs = Outputs("last_token" if sizes.key_heads else "mean")
        items = typical_items(
            self.tokens, sizes.max_tokens, VOCABULARY, seed=1, longest=parts.LONGEST_TOKENS
        )
        yield f"### {label}\n"
        if "nodes" in self.parts:
            run = run_apart(path, sizes.max_tokens, 0, os.environ)
            kernels = ", ".join(sorted({f"{r.op} {r.dtype}: {r.kernel}" for r in run.routes}))
            yield f"- nodes: {'; '.join(run.problems) or 'all on the GPU, no copies, attention fused'}; {kernels}"
        backend = self._open(path, sizes, most, captured=4096)
        try:
            if "parity" in self.parts:
                yield self._parity(sizes, folder, config, backend, outputs)
            if "speed" in self.parts:
                yield from self._speed(sizes, backend, items)
            if "padded" in self.parts:
                yield self._padded(backend, items, most)
            if "latency" in self.parts:
                yield from self._latency(sizes, path, backend, outputs)
            if "memory" in self.parts and label.startswith("float16"):
                budget = min(backend.max_cost, 4.0 * most)
                found = parts.endure(backend, sizes.max_tokens, VOCABULARY, budget, self.seconds)
                yield (
                    f"- memory: {found.batches} batches of adversarial lengths in {self.seconds:.0f} s, "
                    f"{found.shortages} split, {found.failures} failed; holds {backend.max_cost:,.0f} tokens"
                )
        finally:
            backend.close()

    def _open(self, path: Path, sizes: Sizes, budget: int, *, captured: int) -> Backend:
        device = DeviceOptions(sizes.max_tokens, budget, captured_tokens=captured)
        options = BackendOptions(provider="cuda", device=device, memory_share=0.95)
        return self.open_backend(path, Layout.PACKED, options)

    def _parity(
        self, sizes: Sizes, folder: Path, config: dict[str, Any], backend: Backend, outputs: Outputs
    ) -> str:
        path = self.work / f"{sizes.name}-cpu" / "model.onnx"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            export_graph(folder, config, path)
        threads = os.cpu_count() or 1
        cpu = self.open_backend(
            path, Layout.PACKED, BackendOptions(provider="cpu", intra_op_threads=threads)
        )
        try:
            items = typical_items(
                self.texts * 200,
                sizes.max_tokens,
                VOCABULARY,
                seed=2,
                longest=parts.LONGEST_TOKENS,
            )
            found = parts.parity(backend, cpu, outputs, items[: self.texts])
        finally:
            cpu.close()
        return (
            f"- parity with fp32 on CPU: cosine at least {found.least:.6f}, {found.mean:.6f} on average over "
            f"{found.texts} texts; alone against among others at most {found.alone:.1e}"
        )

    def _speed(self, sizes: Sizes, backend: Backend, items: Sequence[Item]) -> Iterator[str]:
        yield "\n| budget, tokens | tokens/s | share of the dense peak |\n|---|---|---|"
        for budget in self.budgets:
            one = parts.speed(backend, items, budget, sizes, self.peak)
            yield f"| {budget:,.0f} | {one.tokens_per_s:,.0f} | {one.share:.1%} |"
        yield ""

    def _padded(self, backend: Backend, items: Sequence[Item], budget: int) -> str:
        packed = max(
            parts.speed(backend, items, b, ALL[0], 0.0).tokens_per_s for b in self.budgets[-3:]
        )
        sorted_, arrival = (
            parts.padded_tokens_per_s(backend, items, budget, is_sorted=one)
            for one in (True, False)
        )
        return (
            f"- packed against padded on the mixed load, same kernels: {packed / max(sorted_, 1e-9):.2f} times sorted "
            f"by length, {packed / max(arrival, 1e-9):.2f} times in the order of arrival"
        )

    def _latency(
        self, sizes: Sizes, path: Path, backend: Backend, outputs: Outputs
    ) -> Iterator[str]:
        item = parts.items_of_length(1, 16, VOCABULARY, 3)[0]
        plain = self._open(path, sizes, max(self.budgets), captured=0)
        try:
            for label, own in (("captured", backend), ("not captured", plain)):
                p50_s, p99_s = parts.latency_s(own, outputs, item, 300)
                times = f"p50 {p50_s * 1000:.2f} ms, p99 {p99_s * 1000:.2f} ms"
                yield f"- one text of 16 tokens, launches {label}: {times}"
        finally:
            plain.close()


def dense_peak(seconds: float = 2.0) -> float:
    """Operations a second of a large half-precision product, by torch if it is there; 0 where it is not."""
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    one = torch.randn(DENSE, DENSE, device="cuda", dtype=torch.float16)
    other = torch.randn(DENSE, DENSE, device="cuda", dtype=torch.float16)
    best = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            one @ other
        torch.cuda.synchronize()
        best = max(best, 5 * 2 * DENSE**3 / (time.perf_counter() - started))
    return best


def report(check: Check, models: Sequence[Sizes], *, peer: bool, http: bool) -> Iterator[str]:
    """The whole report, line by line, as it is measured."""
    cards = gpus()
    card = cards[0].name if cards else "no GPU"
    yield f"# {card}, {datetime.now(UTC):%Y-%m-%d}\n"
    yield f"{machine(card)}; dense half-precision peak {check.peak / 1e12:,.0f} TFLOP/s. Made by `make gpu-check`."
    for sizes in models:
        yield from check.of_model(sizes)
        folder = check.work / sizes.name
        if peer:
            try:
                found = peer_tokens_per_s(folder, sizes, check.tokens // 4)
                size = max(found, key=lambda n: found[n])
                shown = f"{found[size]:,.0f} tokens/s"
                yield f"- sentence-transformers, fp16, sdpa, at its best (batch {size}): {shown}"
            except Exception as error:  # noqa: BLE001 - a peer's trouble is not ours
                yield f"- sentence-transformers: {type(error).__name__}: {error}"
        if http and not sizes.key_heads:
            for processes in HTTP_PROCESSES:
                rate, p50_s = http_tokens_per_s(
                    folder, processes, check.work / "cache", min(256, sizes.max_tokens), 10.0
                )
                yield (
                    f"- over HTTP with {processes} processes, texts of 256 tokens: {rate:,.0f} tokens/s; one short "
                    f"text p50 {p50_s * 1000:.1f} ms"
                )


def _sts_line(file: Path) -> str:
    try:
        cpu, gpu = (100 * sts_correlation(file, provider) for provider in ("cpu", "cuda"))
    except NestvecError as error:
        return f"\nSTS-B: not measured: {error.message}"
    return f"\nSTS-B test, the default model: Spearman {gpu:.2f} on the GPU, {cpu:.2f} on the CPU."


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(one.name for one in ALL))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/stsb/test.tsv"))
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    if not gpus():
        raise SystemExit("gpu-check needs a GPU: the driver shows none (see `nestvec doctor`)")
    chosen = asked.parts.split(",")
    named = [one for one in ALL if one.name in asked.models.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        check = Check(
            Path(scratch),
            open_backend,
            chosen,
            asked.tokens,
            seconds=asked.seconds,
            peak=dense_peak(),
        )
        lines = []
        for line in report(check, named, peer="peer" in chosen, http="http" in chosen):
            print(line, flush=True)
            lines.append(line)
    if "sts" in chosen and asked.sts.is_file():
        line = _sts_line(asked.sts)
        print(line)
        lines.append(line)
    name = "-".join(gpus()[0].name.lower().split())
    file = asked.out or RESULTS / f"{name}.md"
    file.write_text("\n".join(lines) + "\n")
    print(f"\nwritten to {file}")


if __name__ == "__main__":
    main()
