"""What tuning found, kept beside the artefact for each kind of machine."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from nestvec.model_store.sources.disk import put_file
from nestvec.system.json_text import load_json


@dataclass(frozen=True, slots=True)
class Tuned:
    """How to run a graph on a machine.

    Attributes:
        max_batch_tokens: Budget of a micro-batch in the backend's cost units.
        worker_threads: Threads that run batches.
        intra_op_threads: Threads inside one batch.
        plain_attention_tokens: See `BackendOptions`.
        lone_threads: Threads for a text that is alone on an idle server; 1 is the same as any other.
    """

    max_batch_tokens: int
    worker_threads: int
    intra_op_threads: int
    plain_attention_tokens: int
    lone_threads: int


MOST_LONE_THREADS: Final = 4  # a short text has too little work for more
MOST_LONE_BYTES: Final = 256 * 2**20  # of a graph that is opened twice unasked
# Activations of a micro-batch should stay in the L2 cache. Measured on all-MiniLM-L6-v2: with 1 MB a core (Zen 4,
# Zen 5) 256 tokens are as good as 512 in fp32 and better in int8; 512 KB asks for no less.
LARGE_L2_BYTES: Final = 2 * 1024 * 1024


# A batch of a static model costs what handing it over does, so it may be large.
STATIC_BATCH_TOKENS: Final = 16_384


def built_in(
    cpus: int, l2_cache_bytes: int | None, graph_bytes: int, *, has_layers: bool = True
) -> Tuned:
    """What to run with where nothing was tuned.

    Args:
        cpus: Usable ones.
        l2_cache_bytes: Of a core; None where unknown.
        graph_bytes: Size of the graph with its weights.
        has_layers: Whether tokens cost anything to speak of; a static model's do not.
    """
    if not has_layers:
        return Tuned(STATIC_BATCH_TOKENS, cpus, 1, 0, 1)
    has_large_l2 = l2_cache_bytes is not None and l2_cache_bytes >= LARGE_L2_BYTES
    return Tuned(
        max_batch_tokens=512 if has_large_l2 else 256,
        worker_threads=cpus,
        intra_op_threads=1,
        plain_attention_tokens=128,
        lone_threads=min(cpus, MOST_LONE_THREADS) if graph_bytes <= MOST_LONE_BYTES else 1,
    )


# Not measured: estimates of where tokens a second stop growing on an H100. The third worker takes results apart while
# one batch runs and the next is being made ready.
GPU_WORKERS: Final = 3
GPU_NARROW: Final = 512
GPU_BATCH_TOKENS: Final = 8192
GPU_NARROW_BATCH_TOKENS: Final = 16_384


def built_in_for_gpu(hidden_size: int) -> Tuned:
    """What to run with on a GPU where nothing was tuned.

    Args:
        hidden_size: Of the model: narrow ones need more tokens to fill a device.
    """
    tokens = GPU_NARROW_BATCH_TOKENS if hidden_size <= GPU_NARROW else GPU_BATCH_TOKENS
    return Tuned(tokens, GPU_WORKERS, 1, 0, 1)


def read_tuned(artefact: Path, machine: str) -> Tuned | None:
    """What was found for this machine; None where nothing was, or the file is not whole.

    Args:
        artefact: The artefact's folder.
        machine: Names CPU, its usable number and the versions that matter.
    """
    try:
        found = load_json(_path(artefact, machine).read_text("utf-8"))["tuned"]
        tuned = Tuned(**found)
        # Plain attention may be switched off with 0; nothing else may be.
        least = replace(tuned, plain_attention_tokens=tuned.plain_attention_tokens + 1)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_sound = all(type(n) is int and n >= 1 for n in asdict(least).values())
    return tuned if is_sound else None


def write_tuned(artefact: Path, machine: str, tuned: Tuned) -> Path:
    """Keep what was found; an earlier finding for this machine is replaced.

    Returns:
        The file.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    path = _path(artefact, machine)
    content = json.dumps({"machine": machine, "tuned": asdict(tuned)}, indent=1)
    put_file(path, lambda file: file.write(content.encode()))
    return path


def _path(artefact: Path, machine: str) -> Path:
    return artefact / f"tuned-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"
