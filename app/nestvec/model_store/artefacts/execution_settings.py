"""How a graph is run on a machine: as tuning found, kept beside the artefact for each machine, or by default."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from nestvec.model_store.cache_files import atomic_cache_write
from nestvec.system.json_files import load_json


@dataclass(frozen=True, slots=True)
class ExecutionSettings:
    """How to run a graph on a machine.

    Field names are the keys of the file that tuning writes.

    Attributes:
        max_batch_tokens: Budget of a micro-batch in the backend's cost units.
        worker_threads: Threads that run batches.
        intra_op_threads: Threads inside one batch.
        plain_attention_tokens: Length up to which inputs take plain attention; see `BackendOptions`.
        lone_threads: Threads for a text that is alone on an idle server; with 1 it runs as any other.
    """

    max_batch_tokens: int
    worker_threads: int
    intra_op_threads: int
    plain_attention_tokens: int
    lone_threads: int


# A short text has too little work for more. A long one may gain from more, but more were not measured: what a run waits
# for grows with its threads, and they spin meanwhile.
MAX_LONE_THREADS: Final = 4
MAX_LONE_BYTES: Final = 256 * 2**20  # of a graph whose weights are packed twice into memory unasked
# Activations of a micro-batch should stay in the L2 cache. Measured on all-MiniLM-L6-v2: with 1 MB a core (Zen 4,
# Zen 5) 256 tokens are as good as 512 in fp32 and better in int8; 512 KB asks for no less.
LARGE_L2_BYTES: Final = 2 * 1024 * 1024
# A batch of a static model costs what handing it over does, so it may be large.
STATIC_BATCH_TOKENS: Final = 16_384


def default_execution_settings(
    cpus: int,
    l2_cache_bytes: int | None,
    graph_bytes: int,
    *,
    has_layers: bool = True,
    maps_weights: bool = False,
) -> ExecutionSettings:
    """Return the settings for a CPU where nothing was tuned.

    Args:
        cpus: Number of usable CPUs.
        l2_cache_bytes: L2 cache of one core; None where unknown.
        graph_bytes: Size of the graph with its weights.
        has_layers: Whether tokens cost anything to speak of; a static model's do not.
        maps_weights: Whether a second session maps the same weights, so that it takes hardly any memory.
    """
    if not has_layers:
        return ExecutionSettings(STATIC_BATCH_TOKENS, cpus, 1, 0, 1)
    has_lone = maps_weights or graph_bytes <= MAX_LONE_BYTES
    has_large_l2 = l2_cache_bytes is not None and l2_cache_bytes >= LARGE_L2_BYTES
    return ExecutionSettings(
        max_batch_tokens=512 if has_large_l2 else 256,
        worker_threads=cpus,
        intra_op_threads=1,
        plain_attention_tokens=128,
        lone_threads=min(cpus, MAX_LONE_THREADS) if has_lone else 1,
    )


# Not measured: estimates of where tokens a second stop growing on an H100. The third worker takes results apart while
# one batch runs and the next is being made ready.
GPU_WORKERS: Final = 3
GPU_NARROW_WIDTH: Final = 512
GPU_BATCH_TOKENS: Final = 8192
GPU_NARROW_BATCH_TOKENS: Final = 16_384


def default_gpu_execution_settings(hidden_size: int) -> ExecutionSettings:
    """Return the settings for a GPU where nothing was tuned.

    Args:
        hidden_size: Dimensions of the model: narrow ones need more tokens to fill a device.
    """
    tokens = GPU_NARROW_BATCH_TOKENS if hidden_size <= GPU_NARROW_WIDTH else GPU_BATCH_TOKENS
    return ExecutionSettings(tokens, GPU_WORKERS, 1, 0, 1)


def read_execution_settings(artefact: Path, machine: str) -> ExecutionSettings | None:
    """Read what tuning found for a machine; None where it found nothing, or the file is not whole.

    Args:
        artefact: The artefact's folder.
        machine: Names CPU, its usable number and the versions that matter.
    """
    try:
        fields = load_json(_path(artefact, machine).read_text("utf-8"))["tuned"]
        settings = ExecutionSettings(**fields)
        # Plain attention may be switched off with 0; nothing else may be.
        raised = replace(settings, plain_attention_tokens=settings.plain_attention_tokens + 1)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_sound = all(type(n) is int and n >= 1 for n in asdict(raised).values())
    return settings if is_sound else None


def write_execution_settings(artefact: Path, machine: str, settings: ExecutionSettings) -> Path:
    """Keep settings for a machine; earlier ones for it are replaced.

    Returns:
        The file.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    path = _path(artefact, machine)
    content = json.dumps({"machine": machine, "tuned": asdict(settings)}, indent=1)
    with atomic_cache_write(path) as file:
        file.write(content.encode())
    return path


def _path(artefact: Path, machine: str) -> Path:
    return artefact / f"tuned-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
