"""Measures the whole: sentence-transformers on the same lengths, the server over HTTP, STS-B."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import EmbedCall, FloatArray, Truncation
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadRequest, closed_load
from nestvec.tools.quality.scores import pair_cosines, spearman
from nestvec.tools.quality.tasks import read_pairs
from nestvec.tools.tuning.workload import typical_items

from benchmarks.gpu import parts
from benchmarks.models import VOCABULARY, Sizes, text_of
from benchmarks.processes import Server


def peer_tokens_per_s(folder: Path, sizes: Sizes, tokens: int) -> dict[int, float]:
    """Run sentence-transformers in fp16 with sdpa on the same lengths, which it sorts itself.

    Returns:
        Tokens a second by batch size.

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
    tokens_per_s = {}
    for size in (32, 64, 128, 256, 512, 1024):
        model.encode(texts[:size], batch_size=size)
        encode = partial(model.encode, texts, batch_size=size)
        best_s = min(_timed(encode), _timed(encode))
        tokens_per_s[size] = sum(item.tokens for item in items) / best_s
    return tokens_per_s


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def http_tokens_per_s(
    folder: Path, processes: int, cache: Path, length: int, seconds: float
) -> tuple[float, float]:
    """Run the server on texts of one length; returns tokens a second, and a lone text's median seconds."""
    server = Server(
        f"nestvec-{processes}",
        [sys.executable, "-m", "nestvec", "serve", "--model", str(folder), "--port", "{port}"],
        health="/health/ready",
        env={
            "NESTVEC_HTTP_PROCESSES": str(processes),
            "NESTVEC_CACHE_DIR": str(cache),
            "NESTVEC_DATA_DIR": str(cache / "data"),
            "NESTVEC_VECTOR_CACHE_BYTES": "0",
            "NESTVEC_MAX_QUEUE_TOKENS": "50000000",
        },
    )
    random = np.random.default_rng(7)
    bodies = [
        json.dumps(
            {"input": [text_of(length, random) for _ in range(32)], "encoding_format": "base64"}
        ).encode()
        for _ in range(200)
    ]
    target = Target.parse(f"{server.url}/v1/embeddings", {})
    server.start()
    try:
        requests = (LoadRequest(bodies[n % len(bodies)], 32) for n in range(10**9))
        asyncio.run(closed_load(target, requests, connections=16, duration_s=3.0))
        result = asyncio.run(closed_load(target, requests, connections=64, duration_s=seconds))
        short = json.dumps({"input": text_of(16, random)}).encode()
        lone = asyncio.run(
            closed_load(
                target,
                (LoadRequest(short, 1) for _ in range(300)),
                connections=1,
                duration_s=seconds,
            )
        )
    finally:
        server.stop()
    return result.texts * length / result.duration_s, lone.percentile_s(50)


def sts_correlation(file: Path, provider: str) -> float:
    """Return Spearman's correlation of the default model on STS-B, from texts to vectors.

    Args:
        file: The test split of STS-B.
        provider: Where the model runs, "cpu" or "cuda".

    Raises:
        ModelError: The model cannot be served there.
    """
    settings = load_settings({"provider": provider, "vector_cache_bytes": "0"}).for_offline_tools()
    service = build_local_service(settings, NullObserver())
    try:
        task = read_pairs(file)

        async def embed(texts: Sequence[str]) -> FloatArray:
            starts = range(0, len(texts), 256)
            calls = [EmbedCall(texts[n : n + 256], truncate=Truncation.END) for n in starts]
            return np.concatenate([(await service.embed(call)).vectors for call in calls])

        async def both() -> tuple[FloatArray, FloatArray]:
            return await embed(task.first), await embed(task.second)

        first, second = asyncio.run(both())
    finally:
        service.close()
    return spearman(pair_cosines(first, second).tolist(), task.gold)
