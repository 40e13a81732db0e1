"""LoRA adapters, merged into the weights that they change.

Source: LoRA (arXiv:2106.09685) in PEFT's file format, with its rank-stabilised scaling (arXiv:2312.03732).
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import ArtefactError, FormatError
from nestvec.export.graph.weights import PARAMETRIZED, Weights, plain_name
from nestvec.model_store.cache_files import cache_writes, ensure_dir, rename_into_place, sync_tree
from nestvec.model_store.sources.checkpoints import (
    Tensors,
    read_tensors,
    weight_hashes,
    write_checkpoint,
)
from nestvec.system.json_files import read_json

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
TASK_PREFIX: Final = "task:"  # of a setting that names one of the model's own adapters
# Jina's fifth model has adapters as PEFT writes them, in folders by task, around a Qwen3 or an EuroBERT.
JINA_V5: Final = "jina_embeddings_v5"
OWN_ADAPTERS: Final = "adapters"
QWEN3_TENSOR: Final = "self_attn.q_norm.weight"  # which EuroBERT has not
PEFT_PREFIX: Final = "base_model.model."
# Fields of an adapter's configuration that merging does not know, and the values with which they change nothing.
HARMLESS_VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    "bias": (None, "none"),
    "use_dora": (None, False),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "layers_to_transform": (None, []),
    "fan_in_fan_out": (None, False),
}
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        scaling: Factor of the product B A.
        pairs: A [r, in] and B [out, r], float32, by the module's name.
    """

    scaling: float
    pairs: Mapping[str, Pair]


def adapter_alone(name: object) -> str:
    """Say of a folder or a repository that it has an adapter and no model, and the way out."""
    return (
        f"{name}: {ADAPTER_CONFIG}, and no model: a LoRA adapter without the weights that it changes; name a copy with "
        "the adapter merged in (ColPali's and ColQwen2's end in -hf), or its base model, with this one as adapter"
    )


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter from a folder as PEFT writes it.

    Raises:
        FormatError: It is no LoRA, has a setting that merging would lose, or its tensors do not fit each other.
    """
    path = folder / ADAPTER_CONFIG
    config = read_json(path)
    _check_mergeable(path, config)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise FormatError(f"{path}: 'r' must be a positive integer")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise FormatError(f"{path}: 'lora_alpha' must be a number")
    pairs = _read_pairs(folder, rank)
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Adapter(float(scaling), pairs)


def merge_task(folder: Path, task: str, out: Path) -> int:
    """Write a model with one of its own adapters merged in, which lie beside the weights that they change.

    Jina's third embedding model (arXiv:2409.10173) has such adapters: `lora_A` [tasks, r, in] and `lora_B`
    [tasks, out, r] for layers; [tasks, rows, r] and [tasks, r, columns] for tables. Those of its fifth are files of
    their own.

    Args:
        folder: The model's folder.
        task: One of config.json's `lora_adaptations`, or `task_names`.
        out: The new folder.

    Returns:
        Number of layers that were changed.

    Raises:
        FormatError: It has no such adapter.
        ArtefactError: The folder exists or cannot be written.
    """
    adapter = _own_adapter(folder, task)
    if adapter is not None:
        return _merge_own_adapter(folder, adapter, out)
    config = read_json(folder / "config.json")
    tasks, rank = config.get("lora_adaptations"), config.get("lora_rank")
    if not isinstance(tasks, list) or task not in tasks:
        known = ", ".join(map(str, tasks)) if isinstance(tasks, list) else "none"
        raise FormatError(
            f"{folder}/config.json: no adapter '{task}' in lora_adaptations; there are: {known}"
        )
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise FormatError(f"{folder}/config.json: 'lora_rank' must be a positive integer")
    scaling = float(config.get("lora_alpha", 1)) / rank
    stored = read_tensors(folder)
    tensors: Tensors = {}
    for name, tensor in stored.items():
        if ".parametrizations." not in name:
            tensors[name] = tensor
        elif name.endswith(PARAMETRIZED):
            stem = name.removesuffix("original")
            tensors[plain_name(name)] = _with_task(
                stored, stem, tensor, index=tasks.index(task), scaling=scaling
            )
    provenance = {"made_by": f"own adapter '{task}' merged", "model": weight_hashes(folder)}
    write_checkpoint(folder, tensors, out, provenance)
    return sum(name.endswith(PARAMETRIZED) for name in stored)


def _own_adapter(folder: Path, task: str) -> Path | None:
    """Return the folder of one of a model's own adapters; None where they lie in the checkpoint.

    Raises:
        FormatError: It has none of this name.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != JINA_V5:
        return None
    tasks = config.get("task_names")
    known = [name for name in tasks if isinstance(name, str)] if isinstance(tasks, list) else []
    if task not in known or Path(task).name != task:
        raise FormatError(
            f"{folder}/config.json: no adapter '{task}' in task_names; there are: {', '.join(known) or 'none'}"
        )
    return folder / OWN_ADAPTERS / task


def _merge_own_adapter(folder: Path, adapter: Path, out: Path) -> int:
    """Write Jina's fifth model with one of its adapters merged in, as it publishes such models itself: a plain decoder.

    What its own code does is said by files then: the vector is the last token's.
    """
    count = merge_adapter(folder, adapter, out)
    with Weights(out) as weights:
        is_qwen3 = any(name.endswith(QWEN3_TENSOR) for name in weights.names())
    config = dict(read_json(out / "config.json"))
    for name in ("auto_map", "architectures", "task_names"):
        config.pop(name, None)
    config["model_type"] = "qwen3" if is_qwen3 else "eurobert"
    try:
        (out / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
        (out / "modules.json").unlink(missing_ok=True)
        shutil.rmtree(out / OWN_ADAPTERS, ignore_errors=True)
        (out / "1_Pooling").mkdir(exist_ok=True)
        (out / "1_Pooling/config.json").write_text('{"pooling_mode": "lasttoken"}', "utf-8")
    except OSError as error:
        raise ArtefactError(f"{out}: cannot be written ({error.strerror})") from error
    return count


def _with_task(
    stored: Tensors, stem: str, weight: NDArray[Any], *, index: int, scaling: float
) -> NDArray[Any]:
    """Add an adapter's product to the weight that it changes; in the weight's dtype.

    Raises:
        FormatError: The adapter's matrices are missing or do not fit.
    """
    try:
        a = stored[f"{stem}0.lora_A"][index].astype(np.float32)
        b = stored[f"{stem}0.lora_B"][index].astype(np.float32)
    except (KeyError, IndexError):
        raise FormatError(f"tensor '{stem}0.lora_A' or its lora_B lacks this task") from None
    product = b @ a if b.shape[-1] == a.shape[0] else a @ b
    if product.shape != weight.shape:
        raise FormatError(f"tensor '{stem}0.lora_A' does not fit the weight that it changes")
    changed: NDArray[Any] = (weight.astype(np.float32) + scaling * product).astype(weight.dtype)
    return changed


def merge_adapter(folder: Path, adapter_folder: Path, out: Path) -> int:
    """Write a model with an adapter merged into its weights: W + s B A.

    Args:
        folder: The model's folder.
        adapter_folder: The adapter's folder.
        out: The new folder.

    Returns:
        Number of layers that were changed.

    Raises:
        FormatError: The adapter does not fit the model.
        ArtefactError: The folder exists or cannot be written.
    """
    adapter = read_adapter(adapter_folder)
    tensors = read_tensors(folder)
    for module, (down, up) in adapter.pairs.items():
        name = _tensor_of(tensors, module, folder)
        weight = tensors[name]
        if weight.shape != (up.shape[0], down.shape[1]):
            raise FormatError(
                f"{adapter_folder}: layer '{module}' is {up.shape[0]} x {down.shape[1]}, the model's {weight.shape}"
            )
        changed = weight.astype(np.float32) + adapter.scaling * (up @ down)
        tensors[name] = changed.astype(weight.dtype)
    sources = {"model": weight_hashes(folder), "adapter": weight_hashes(adapter_folder)}
    write_checkpoint(folder, tensors, out, {"made_by": "adapter merged", **sources})
    return len(adapter.pairs)


def _check_mergeable(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter with a setting that merging would lose.

    Raises:
        FormatError: It has one; names the field.
    """
    if config.get("peft_type") != "LORA":
        raise FormatError(f"{path}: peft_type '{config.get('peft_type')}' is not supported")
    for name, harmless in HARMLESS_VALUES.items():
        if config.get(name) not in harmless:
            raise FormatError(f"{path}: '{name}' is not supported")


def _read_pairs(folder: Path, rank: int) -> dict[str, Pair]:
    """Read an adapter's matrices, A and B, by the module's name.

    Raises:
        FormatError: They are missing or of another rank, or there are other tensors with them.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise FormatError(f"{folder}: no {ADAPTER_WEIGHTS} (pickled adapters are not read)")
    pairs = {}
    with Weights(folder, (path,)) as tensors:
        for name in tensors.names():
            module, kind, _ = name.rpartition(".lora_A.")
            if not kind and ".lora_B." not in name:
                raise FormatError(f"{path}: tensor '{name}' is no LoRA's")
            if not kind:
                continue
            other = name.replace(".lora_A.", ".lora_B.")
            down, up = tensors.shape(name), tensors.shape(other)
            if (down[:1], up[1:]) != ((rank,), (rank,)) or len(down) != len(up):
                raise FormatError(f"{path}: tensor '{name}' is not of rank {rank}")
            matrices = tensors.get(name, down), tensors.get(other, up)
            pairs[module.removeprefix(PEFT_PREFIX)] = matrices
    if not pairs:
        raise FormatError(f"{path}: holds no adapter")
    return pairs


def _tensor_of(tensors: Tensors, module: str, folder: Path) -> str:
    """Return the name of the tensor that an adapter's module changes; its base may have had another prefix.

    Raises:
        FormatError: None or several could be it.
    """
    ending = f"{module}.weight"
    names = [name for name in tensors if name == ending or name.endswith(f".{ending}")]
    if not names:  # the adapter's base had a prefix that this checkpoint has not
        names = [name for name in tensors if ending.endswith(f".{name}")]
    if len(names) != 1:
        raise FormatError(
            f"{folder}: {len(names)} layers are called '{module}', which the adapter changes"
        )
    return names[0]


def merged_folder(folder: Path, adapter: Path, cache_dir: Path) -> Path:
    """Return a folder of the cache with a model that has an adapter merged in; made once.

    Args:
        folder: The model's folder.
        adapter: The adapter's folder; or `task:NAME` for one that the model brings along.
        cache_dir: The cache.

    Raises:
        FormatError: The adapter does not fit the model.
        ArtefactError: The cache cannot be written.
    """
    task = str(adapter).removeprefix(TASK_PREFIX) if str(adapter).startswith(TASK_PREFIX) else None
    files = adapter if task is None else _own_adapter(folder, task)
    identity: list[Any] | str = task or ""
    if files is not None:
        identity = [read_json(files / ADAPTER_CONFIG), weight_hashes(files)]
    content = json.dumps([str(folder.resolve()), weight_hashes(folder), identity], sort_keys=True)
    target = cache_dir / "merged" / hashlib.sha256(content.encode()).hexdigest()[:32]
    if target.is_dir():
        return target
    with (
        cache_writes(cache_dir),
        tempfile.TemporaryDirectory(dir=ensure_dir(target.parent), prefix=".merge-") as scratch,
    ):
        draft = Path(scratch) / "model"
        if task is not None:
            merge_task(folder, task, draft)
        else:
            merge_adapter(folder, adapter, draft)
        sync_tree(draft)
        rename_into_place(draft, target)
    return target
