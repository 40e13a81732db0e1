"""Measures everything that needs a GPU in one run: parity, speed, memory, HTTP; writes benchmarks/results/<gpu>.md.

Usage: python -m benchmarks.gpu.check [--models minilm-l6,bge-base] [--parts parity,speed,…] [--seconds 240]
Compare cards and peers by ratios within one run only.
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

from nestvec.assembly.execution import machine_key
from nestvec.backends.open import open_backend
from nestvec.backends.providers import gpus
from nestvec.engine.backend import Backend, BackendFactory, BackendOptions, DeviceOptions
from nestvec.engine.types import Item, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import NestvecError
from nestvec.export.architectures import export_graph
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from nestvec.tools.diagnostics.device_run import run_in_subprocess
from nestvec.tools.tuning.workload import typical_items

from benchmarks.gpu import parts
from benchmarks.gpu.outside import http_tokens_per_s, peer_tokens_per_s, sts_correlation
from benchmarks.models import ALL, VOCABULARY, Sizes, write_model

PARTS: Final = ("nodes", "parity", "speed", "padded", "latency", "memory", "peer", "http", "sts")
BUDGETS: Final = (1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
HTTP_PROCESSES: Final = (1, 4, 8)
RESULTS: Final = Path(__file__).parent.parent / "results"
# Side of the square matrices by which the dense peak is measured.
DENSE_SIZE: Final = 8192
# STS-B's test split lies in the folder of test data that the Makefile names too.
STS: Final = Path(os.environ.get("DATA", "data")) / "stsb" / "test.tsv"


@dataclass(slots=True)
class Check:
    """One run of the check.

    Attributes:
        work: Folder for models and graphs.
        open_backend: Opens graphs.
        parts: Which of `PARTS` to measure.
        tokens: Number of tokens of a load.
        texts: Number of texts for parity.
        seconds: Duration of the memory part.
        peak: Operations a second of a large half-precision product here; 0 where unknown.
        budgets: Budgets to measure the speed with, in token equivalents, rising.
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
        """Yield the lines of a model's part of the report."""
        folder = write_model(sizes, self.work / sizes.name)
        config = json.loads((folder / "config.json").read_text())
        yield f"\n## {sizes.name}\n"
        yield (
            f"{sizes.hidden} wide, {sizes.layers} layers, {sizes.weights_per_token / 1e6:,.0f} M weights a token, "
            f"up to {sizes.max_tokens} tokens; random weights.\n"
        )
        pooling = "last_token" if sizes.pooling == "lasttoken" else "mean"
        exports = [DeviceExportOptions(pooling=pooling)]
        if sizes.family != "bert":
            exports.append(DeviceExportOptions(attention=DeviceAttention.PACKED, pooling=pooling))
            exports.append(DeviceExportOptions(FloatType.BF16, pooling=pooling))
        for number, options in enumerate(exports):
            label = f"{options.float_type}, {options.attention}"
            path = self.work / f"{sizes.name}-{number}" / "model.onnx"
            path.parent.mkdir(exist_ok=True)
            try:
                export_device_graph(folder, config, path, options)
                yield from self._of_graph(sizes, folder, config, path, label)
            except NestvecError as error:
                yield f"- {label}: FAILED: {error.message} ({error.__cause__ or ''})"

    def _of_graph(
        self, sizes: Sizes, folder: Path, config: dict[str, Any], path: Path, label: str
    ) -> Iterator[str]:
        budget = max(self.budgets)
        pooler = Pooler("last_token" if sizes.pooling == "lasttoken" else "mean")
        items = typical_items(
            self.tokens, sizes.max_tokens, VOCABULARY, seed=1, longest=parts.LONGEST_TOKENS
        )
        yield f"### {label}\n"
        if "nodes" in self.parts:
            run = run_in_subprocess(path, sizes.max_tokens, 0, os.environ)
            kernels = {f"{k.op} {k.dtype}: {k.kernel}" for k in run.attention_kernels}
            verdict = "; ".join(run.problems) or "all on the GPU, no copies, attention fused"
            yield f"- nodes: {verdict}; {', '.join(sorted(kernels))}"
        backend = self._open(path, sizes, budget, captured_tokens=4096)
        try:
            if "parity" in self.parts:
                yield self._parity(sizes, folder, config, backend, pooler)
            if "speed" in self.parts:
                yield from self._speed(sizes, backend, items)
            if "padded" in self.parts:
                yield self._padded(backend, items, budget)
            if "latency" in self.parts:
                yield from self._latency(sizes, path, backend, pooler)
            if "memory" in self.parts and label.startswith("float16"):
                yield self._memory(sizes, backend, budget)
        finally:
            backend.close()

    def _memory(self, sizes: Sizes, backend: Backend, budget: int) -> str:
        max_cost = min(backend.info.max_cost, 4.0 * budget)
        result = parts.endure(backend, sizes.max_tokens, VOCABULARY, max_cost, self.seconds)
        return (
            f"- memory: {result.batches} batches of adversarial lengths in {self.seconds:.0f} s, "
            f"{result.shortages} split, {result.failures} failed; holds {backend.info.max_cost:,.0f} tokens"
        )

    def _open(self, path: Path, sizes: Sizes, budget: int, *, captured_tokens: int) -> Backend:
        device = DeviceOptions(sizes.max_tokens, budget, captured_tokens=captured_tokens)
        options = BackendOptions(provider="cuda", device=device, memory_share=0.95)
        return self.open_backend(path, Layout.PACKED, options)

    def _parity(
        self, sizes: Sizes, folder: Path, config: dict[str, Any], backend: Backend, pooler: Pooler
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
            parity = parts.parity(backend, cpu, pooler, items[: self.texts])
        finally:
            cpu.close()
        return (
            f"- parity with fp32 on CPU: cosine at least {parity.min_cosine:.6f}, {parity.mean_cosine:.6f} on average "
            f"over {parity.texts} texts; alone against among others at most {parity.max_difference:.1e}"
        )

    def _speed(self, sizes: Sizes, backend: Backend, items: Sequence[Item]) -> Iterator[str]:
        yield "\n| budget, tokens | tokens/s | share of the dense peak |\n|---|---|---|"
        for budget in self.budgets:
            speed = parts.speed(backend, items, budget, sizes, self.peak)
            yield f"| {budget:,.0f} | {speed.tokens_per_s:,.0f} | {speed.share:.1%} |"
        yield ""

    def _padded(self, backend: Backend, items: Sequence[Item], budget: int) -> str:
        packed = max(
            parts.speed(backend, items, b, ALL[0], 0.0).tokens_per_s for b in self.budgets[-3:]
        )
        sorted_, arrival = (
            parts.padded_tokens_per_s(backend, items, budget, is_sorted=is_sorted)
            for is_sorted in (True, False)
        )
        return (
            f"- packed against padded on the mixed load, same kernels: {packed / max(sorted_, 1e-9):.2f} times sorted "
            f"by length, {packed / max(arrival, 1e-9):.2f} times in the order of arrival"
        )

    def _latency(self, sizes: Sizes, path: Path, backend: Backend, pooler: Pooler) -> Iterator[str]:
        item = parts.items_of_length(1, 16, VOCABULARY, 3)[0]
        plain = self._open(path, sizes, max(self.budgets), captured_tokens=0)
        try:
            for label, measured in (("captured", backend), ("not captured", plain)):
                p50_s, p99_s = parts.latency_s(measured, pooler, item, 300)
                times = f"p50 {p50_s * 1000:.2f} ms, p99 {p99_s * 1000:.2f} ms"
                yield f"- one text of 16 tokens, launches {label}: {times}"
        finally:
            plain.close()


def dense_peak(seconds: float = 2.0) -> float:
    """Return the operations a second of a large half-precision product by torch; 0 where torch has no GPU."""
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    left = torch.randn(DENSE_SIZE, DENSE_SIZE, device="cuda", dtype=torch.float16)
    right = torch.randn(DENSE_SIZE, DENSE_SIZE, device="cuda", dtype=torch.float16)
    best = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        torch.cuda.synchronize()
        best = max(best, 5 * 2 * DENSE_SIZE**3 / (time.perf_counter() - started))
    return best


def report(check: Check, models: Sequence[Sizes], *, peer: bool, http: bool) -> Iterator[str]:
    """Yield the whole report, line by line, as it is measured.

    Args:
        check: What to measure, and how.
        models: Models to measure.
        peer: Whether to measure sentence-transformers too.
        http: Whether to measure the server over HTTP too.
    """
    cards = gpus()
    card = cards[0].name if cards else "no GPU"
    yield f"# {card}, {datetime.now(UTC):%Y-%m-%d}\n"
    yield f"{machine_key(card)}; dense half-precision peak {check.peak / 1e12:,.0f} TFLOP/s. Made by `make gpu-check`."
    for sizes in models:
        yield from check.of_model(sizes)
        folder = check.work / sizes.name
        if peer:
            try:
                by_size = peer_tokens_per_s(folder, sizes, check.tokens // 4)
                size = max(by_size, key=lambda n: by_size[n])
                speed = f"{by_size[size]:,.0f} tokens/s"
                yield f"- sentence-transformers, fp16, sdpa, at its best (batch {size}): {speed}"
            except Exception as error:  # noqa: BLE001 - a peer's failure must not end the run
                yield f"- sentence-transformers: {type(error).__name__}: {error}"
        if http and not sizes.kv_heads:
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
    """Parse the arguments, measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(sizes.name for sizes in ALL))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--sts", type=Path, default=STS, help="left out if it is no file")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    if not gpus():
        raise SystemExit("gpu-check needs a GPU: the driver shows none (see `nestvec doctor`)")
    chosen = arguments.parts.split(",")
    models = [sizes for sizes in ALL if sizes.name in arguments.models.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        check = Check(
            Path(scratch),
            open_backend,
            chosen,
            arguments.tokens,
            seconds=arguments.seconds,
            peak=dense_peak(),
        )
        lines = []
        for line in report(check, models, peer="peer" in chosen, http="http" in chosen):
            print(line, flush=True)
            lines.append(line)
    if "sts" in chosen and arguments.sts.is_file():
        line = _sts_line(arguments.sts)
        print(line)
        lines.append(line)
    name = "-".join(gpus()[0].name.lower().split())
    file = arguments.out or RESULTS / f"{name}.md"
    file.write_text("\n".join(lines) + "\n")
    print(f"\nwritten to {file}")


if __name__ == "__main__":
    main()
