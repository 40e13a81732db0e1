"""The roofline of a benchmark: what the machine can do at best, and what a model asks of it."""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from nestvec.engine.backend import BackendFactory, BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.export.graph.builder import GraphBuilder

# Rows and columns of the square matrices.
SIZES: Final = (512, 768, 1536)
TOKENS: Final = 512
ROUNDS: Final = 6
CHAINED_PRODUCTS: Final = 8
PRODUCT_OPS: Final = frozenset({"Gemm", "MatMul", "MatMulIntegerToFloat"})
MATRIX_RANK: Final = 2


def peak_gemm_flops_per_s(open_backend: BackendFactory, threads: int) -> float:
    """Return the most float32 operations per second that matrix products reach on this machine.

    Each thread multiplies matrices of its own, as workers do, in several sizes: by numpy's BLAS and by the runtime
    that serves. The best round of any counts.
    """
    return max(
        product(size, threads)
        for size in SIZES
        for product in (_blas, lambda size, threads: _runtime(open_backend, size, threads))
    )


def _blas(size: int, threads: int) -> float:
    """Return operations per second of `[N, N]` products by numpy's BLAS."""
    pairs = [np.random.default_rng(0).random((2, size, size), np.float32) for _ in range(threads)]
    works = [partial(np.matmul, pair[0], pair[1]) for pair in pairs]
    return 2.0 * size**3 * threads / min(_parallel_s(works) for _ in range(ROUNDS))


def _runtime(open_backend: BackendFactory, size: int, threads: int) -> float:
    """Return operations per second of products of `[T, N]` with some `[N, N]`, in a graph of nothing else."""
    graph, square = GraphBuilder("gemm"), np.eye(size, dtype=np.float32)
    state = graph.op("Gather", graph.weight("table", square), graph.input("ids", "int64", ("T",)))
    bias = graph.weight("bias", np.zeros(size, np.float32))
    for number in range(CHAINED_PRODUCTS):
        state = graph.op("Gemm", state, graph.weight(f"square_{number}", square), bias)
    graph.output(state, "hidden", ("T", size))
    batch = collate([Item(ids=np.arange(TOKENS, dtype=np.int32) % size)], Layout.PACKED)
    with tempfile.TemporaryDirectory() as scratch:
        graph.save(Path(scratch) / "gemm.onnx")
        options = BackendOptions(provider="cpu")
        backend = open_backend(Path(scratch) / "gemm.onnx", Layout.PACKED, options)
        works = [partial(backend.run, batch)] * threads
        seconds = min(_parallel_s(works) for _ in range(ROUNDS))
        backend.close()
    return 2.0 * CHAINED_PRODUCTS * TOKENS * size**2 * threads / seconds


def _parallel_s(works: Sequence[Callable[[], object]]) -> float:
    """Return the seconds in which every thread does its work."""
    with ThreadPoolExecutor(len(works)) as pool:
        started = time.perf_counter()
        for future in [pool.submit(work) for work in works]:
            future.result()
        return time.perf_counter() - started


def linear_weights(graph: Path) -> int:
    """Return the number of elements of all matrices that a graph multiplies token states with."""
    model = onnx.load(str(graph), load_external_data=False)
    sizes = {
        weight.name: int(np.prod(weight.dims))
        for weight in model.graph.initializer
        if len(weight.dims) == MATRIX_RANK
    }
    # Weights stored as float16 are widened by a Cast on the way.
    widened = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    used = {
        widened.get(name, name)
        for node in model.graph.node
        if node.op_type in PRODUCT_OPS
        for name in node.input
    }
    return sum(size for name, size in sizes.items() if name in used)


def flops_per_token(
    graph: Path, config: Mapping[str, Any], hidden_size: int, length: float
) -> float:
    """Return the operations for one token: every linear weight twice, and attention's two products.

    Args:
        graph: The model's ONNX graph.
        config: The model's config.json.
        hidden_size: H.
        length: Number of tokens in the token's text.
    """
    layers = int(config.get("num_hidden_layers", config.get("n_layers", 0)))
    return 2.0 * linear_weights(graph) + 4.0 * length * hidden_size * layers


def peak_rss_bytes() -> int:
    """Return the most resident memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
