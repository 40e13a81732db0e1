"""Runs a device graph at several sizes, and prints where its nodes ran.

It runs in a process of its own, as the runtime must be told at its start to print which attention it takes.

Usage: python -m nestvec.tools.diagnostics.device_run GRAPH MAX_TOKENS DEVICE_ID
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.device_thread import DeviceThread
from nestvec.backends.cuda.open import device_thread_for
from nestvec.engine.backend import DeviceOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.errors import ProviderError
from nestvec.tools.diagnostics.attention_kernels import (
    DEBUG,
    FUSED,
    AttentionKernel,
    read_attention_kernels,
)

MARK: Final = "PLACEMENT "
# Lengths of the inputs of each batch that is run, in tokens.
BATCHES: Final = ((8,), (16,) * 16, (100, 3, 40), (256,) * 4, (512, 16))
MAX_BATCH_TOKENS: Final = 1024
CAPTURED_TOKENS: Final = 256
MEMORY_SHARE: Final = 0.5
TIMEOUT_S: Final = 300.0
# Nodes that only compute shapes belong on the CPU.
SHAPE_OPS: Final = (
    "Shape",
    "Concat",
    "Gather",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "Add",
    "Mul",
)
CUDA: Final = "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class DeviceRun:
    """Where a graph ran.

    Attributes:
        placement: How often each op ran, by provider.
        attention_kernels: How often each attention kernel ran.
        captured: Number of sizes for which a CUDA graph was captured.
    """

    placement: Mapping[str, Mapping[str, int]]
    attention_kernels: Counter[AttentionKernel]
    captured: int

    @property
    def problems(self) -> list[str]:
        """What should be otherwise, in words; empty if all is well."""
        problems = []
        for provider, ops in self.placement.items():
            misplaced = sorted(set(ops) - set(SHAPE_OPS))
            if provider != CUDA and misplaced:
                problems.append(f"on {provider}: {', '.join(misplaced)}")
        copies = [op for ops in self.placement.values() for op in ops if op.startswith("Memcpy")]
        if copies:
            problems.append(f"copies between host and device: {', '.join(sorted(set(copies)))}")
        kernels = self.attention_kernels
        unfused = sorted({f"{k.op} in {k.dtype}" for k in kernels if k.kernel not in FUSED})
        if unfused:
            problems.append(f"attention without a fused kernel: {', '.join(unfused)}")
        return problems


def run_in_subprocess(
    graph: Path, max_tokens: int, device_id: int, environment: Mapping[str, str]
) -> DeviceRun:
    """Run a graph in a process of its own, and read what it prints.

    Args:
        graph: The device graph.
        max_tokens: Most tokens of an input.
        device_id: Number of the GPU, as CUDA counts them.
        environment: Variables of the process.

    Raises:
        ProviderError: The run failed; the message says how it ended.
    """
    command = [sys.executable, "-m", __name__, str(graph), str(max_tokens), str(device_id)]
    completed = subprocess.run(  # noqa: S603 - our own module
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**environment, DEBUG: "1"},
        check=False,
    )
    return read_run(completed.stdout, completed.stderr, completed.returncode)


def read_run(output: str, errors: str, status: int) -> DeviceRun:
    """Read what a run printed.

    Raises:
        ProviderError: The run failed.
    """
    lines = output.splitlines()
    marked = next((line[len(MARK) :] for line in lines if line.startswith(MARK)), None)
    if status or marked is None:
        last = (errors.strip().splitlines() or ["nothing was said"])[-1]
        raise ProviderError(f"the graph does not run on the GPU (exit status {status}): {last}")
    report = json.loads(marked)
    return DeviceRun(report["placement"], read_attention_kernels(lines), report["captured"])


def print_placement(graph: Path, max_tokens: int, thread: DeviceThread) -> None:
    """Run the batches, and print where nodes ran and how many sizes can be captured."""
    from nestvec.backends.cuda.onnx_session import OnnxDeviceSession

    sessions: list[OnnxDeviceSession] = []

    def open_profiled(path: Path, *, memory_limit_bytes: int, captures: bool) -> OnnxDeviceSession:
        session = OnnxDeviceSession(
            path,
            thread.device,
            memory_limit_bytes=memory_limit_bytes,
            captures=captures,
            profiles=not captures,
        )
        sessions.append(session)
        return session

    def open_backend(captured_tokens: int) -> DeviceBackend:
        options = DeviceOptions(max_tokens, MAX_BATCH_TOKENS, captured_tokens=captured_tokens)
        return DeviceBackend(graph, thread, open_profiled, options)

    plain = open_backend(0)
    for lengths in BATCHES:
        items = [Item(np.ones(min(n, max_tokens), np.int32)) for n in lengths]
        for pools in (True, False):
            plain.run(collate(items, Layout.PACKED, pools=pools))
    placement = sessions[0].placement()
    plain.close()
    capturing = open_backend(CAPTURED_TOKENS)
    captured = len(capturing.captured_shapes)
    capturing.close()
    print(MARK + json.dumps({"placement": placement, "captured": captured}), flush=True)  # noqa: T201


def main(graph: str, max_tokens: str, device_id: str) -> None:
    """Run a graph on a GPU, as the module's docstring says."""
    thread = device_thread_for(int(device_id), MEMORY_SHARE)
    print_placement(Path(graph), int(max_tokens), thread)


if __name__ == "__main__":
    main(*sys.argv[1:])
