"""Measures the whole: what the card can do, sentence-transformers, the server over HTTP, STS-B."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.corpus.reports.statistics.scores import pair_cosines, spearman
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import EmbedCall, FloatArray, Truncation
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadRequest, closed_load
from nestvec.tools.quality.tasks import read_pairs
from nestvec.tools.tuning.workload import typical_items

from benchmarks.gpu import parts
from benchmarks.models import VOCABULARY, Sizes, text_of
from benchmarks.processes import Server

# Side of the square matrices by which the dense peak is measured.
DENSE_SIZE: Final = 8192
# Texts of a batch of sentence-transformers; the best counts.
PEER_BATCHES: Final = (64, 256, 1024)


@dataclass(frozen=True, slots=True)
class HttpServer:
    """A server to load over HTTP.

    Attributes:
        folder: The model.
        processes: Number of HTTP processes.
        log: File for its output.
    """

    folder: Path
    processes: int
    log: Path


def dense_peak(seconds: float = 2.0) -> dict[str, float]:
    """Measure the operations a second of a large half-precision product by torch.

    Raises:
        ImportError: There is no torch.
        RuntimeError: It sees no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU")
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
    return {"operations_per_s": best}


def peer_tokens_per_s(folder: Path, sizes: Sizes, tokens: int) -> dict[str, Any]:
    """Run sentence-transformers in fp16 with sdpa on the same lengths, which it sorts itself.

    Returns:
        "tokens_per_s" of the best batch size, and "by_size".

    Raises:
        ImportError: sentence-transformers is not installed.
    """
    import torch
    from sentence_transformers import SentenceTransformer  # type: ignore[import-not-found]

    items = typical_items(
        tokens, sizes.max_tokens, VOCABULARY, seed=1, longest=parts.LONGEST_TOKENS
    )
    random = np.random.default_rng(1)
    texts = [text_of(item.tokens, random) for item in items]
    model = SentenceTransformer(
        str(folder),
        device="cuda",
        model_kwargs={"dtype": torch.float16, "attn_implementation": "sdpa"},
    )
    by_size = {}
    for size in PEER_BATCHES:
        model.encode(texts[:size], batch_size=size)
        encode = partial(model.encode, texts, batch_size=size)
        best_s = min(_timed(encode), _timed(encode))
        by_size[str(size)] = sum(item.tokens for item in items) / best_s
    return {"tokens_per_s": max(by_size.values()), "by_size": by_size}


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def http_tokens_per_s(server: HttpServer, length: int, seconds: float) -> dict[str, Any]:
    """Run the server on texts of one length, then on a lone text at a time.

    Args:
        server: The server.
        length: Tokens of a text.
        seconds: How long each load lasts.

    Returns:
        "tokens_per_s", a lone text's median seconds "p50_s", and "client_cpu", the cores that the client took: near 1
        it is the client that is measured.

    Raises:
        SystemExit: The server does not start; its log says why.
    """
    process = Server(
        "nestvec",
        [
            sys.executable,
            "-m",
            "nestvec",
            "serve",
            "--model",
            str(server.folder),
            "--port",
            "{port}",
        ],
        health="/health/ready",
        env={
            "NESTVEC_PROVIDER": "cuda",
            "NESTVEC_HTTP_PROCESSES": str(server.processes),
            "NESTVEC_VECTOR_CACHE_BYTES": "0",
            "NESTVEC_MAX_QUEUE_TOKENS": "50000000",
        },
        log=server.log,
        ready_timeout_s=90,
    )
    random = np.random.default_rng(7)
    bodies = [
        json.dumps(
            {"input": [text_of(length, random) for _ in range(32)], "encoding_format": "base64"}
        ).encode()
        for _ in range(100)
    ]
    target = Target.parse(f"{process.url}/v1/embeddings", {})
    try:
        process.start()
        requests = (LoadRequest(bodies[n % len(bodies)], 32) for n in range(10**9))
        asyncio.run(closed_load(target, requests, connections=16, duration_s=2.0))
        cpu_s = time.process_time()
        result = asyncio.run(closed_load(target, requests, connections=64, duration_s=seconds))
        cpu_s = time.process_time() - cpu_s
        short = json.dumps({"input": text_of(16, random)}).encode()
        alone = (LoadRequest(short, 1) for _ in range(300))
        lone = asyncio.run(closed_load(target, alone, connections=1, duration_s=min(seconds, 5.0)))
    finally:
        process.stop()
    return {
        "tokens_per_s": result.texts * length / result.duration_s,
        "p50_s": lone.percentile_s(50),
        "client_cpu": cpu_s / result.duration_s,
    }


def sts_correlation(file: Path, provider: str) -> dict[str, float]:
    """Return Spearman's correlation of the default model on STS-B, from texts to vectors.

    Args:
        file: The test split of STS-B.
        provider: Where the model runs, "cpu" or "cuda".

    Raises:
        FileNotFoundError: There is no such file.
        ModelError: The model cannot be served there.
    """
    task = read_pairs(file)
    settings = load_settings({"provider": provider, "vector_cache_bytes": "0"}).for_offline_tools()
    service = build_local_service(settings, NullObserver())
    try:

        async def embed(texts: Sequence[str]) -> FloatArray:
            starts = range(0, len(texts), 256)
            calls = [EmbedCall(texts[n : n + 256], truncate=Truncation.END) for n in starts]
            return np.concatenate([(await service.embed(call)).vectors for call in calls])

        async def both() -> tuple[FloatArray, FloatArray]:
            return await embed(task.first), await embed(task.second)

        first, second = asyncio.run(both())
    finally:
        service.close()
    return {"spearman": spearman(pair_cosines(first, second).tolist(), task.gold)}
