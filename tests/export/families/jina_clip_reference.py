"""jina-clip's towers of texts in numpy, float64, written from their papers and descriptions of their authors' code.

v1 (arXiv:2405.20204) has Jina's BERT, for which `jina_bert_reference` stands, under other names. v2 (arXiv:2412.08802)
has XLM-RoBERTa with rotary positions (arXiv:2409.10173), whose matrices have an adapter's product added. transformers
has neither, and the published code was not run.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.export.families import jina_bert_reference
from tests.export.families.reference_layers import Float64Array, gelu, layer_norm, softmax

SIZES: Final[dict[str, Any]] = {"vocab_size": 128, "max_position_embeddings": 40}
PREFIX: Final = "text_model.transformer."
TASKS: Final = ["text-matching", "retrieval.query"]
ROTARY: Final[dict[str, Any]] = {
    "model_type": "jina_clip",
    "projection_dim": 32,
    "add_projections": False,
    "matryoshka_dimensions": [8, 16, 32],
    "vision_config": {"embed_dim": 32},
    "text_config": {
        **SIZES,
        "embed_dim": 32,
        "hf_model_name_or_path": "jinaai/jina-embeddings-v3",
        "default_instruction_task": None,
        "default_lora_task": TASKS[1],
        "pooler_type": "mean_pooler",
        "proj_type": None,
        "proj_bias": False,
        "hf_model_config_kwargs": {
            **SIZES,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "rotary_emb_base": 700.0,
            "lora_adaptations": TASKS,
            "lora_rank": 2,
            "lora_alpha": 3,
            "lora_dropout_p": 0.0,
            "load_trained_adapters": False,
            "task_instructions": {
                "text-matching": "match : ",
                "retrieval.query": "query : ",
            },
            "use_flash_attn": True,
        },
    },
}
ALIBI: Final[dict[str, Any]] = {
    "model_type": "jina_clip",
    "projection_dim": 32,
    "vision_config": {"embed_dim": 32},
    "text_config": {
        **SIZES,
        "embed_dim": 32,
        "hf_model_name_or_path": "jinaai/jina-bert-flash-implementation",
        "pooler_type": "mean_pooler",
        "hf_model_config_kwargs": {
            **SIZES,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "use_flash_attn": False,
        },
    },
}
Shapes = dict[str, list[int]]


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the model that the tower is made like."""
    return dict(config["text_config"]["hf_model_config_kwargs"])


def is_alibi(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of v1."""
    name: str = config["text_config"]["hf_model_name_or_path"]
    return "bert-flash" in name


def shapes(config: Mapping[str, Any]) -> Shapes:
    """Return the shape of every tensor of the tower of texts."""
    return _alibi_shapes(config) if is_alibi(config) else _rotary_shapes(config)


def last_states(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], ids: list[int]
) -> Float64Array:
    """Compute the last states of one input, [n, H]."""
    if not is_alibi(config):
        return _rotary_states(config, tensors, ids)
    own = {**fields(config), "layer_norm_eps": 1e-12, "type_vocab_size": 2}
    wide = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    named: dict[str, NDArray[np.float32]] = {}
    for name in jina_bert_reference.shapes(own):
        part = next((p for p in ("query", "key", "value") if f"self.{p}." in name), None)
        if part is None:
            named[name] = wide[_theirs(name)]
            continue
        joined = wide[
            name.replace(f"attention.self.{part}", "mixer.Wqkv").replace(".layer.", ".layers.")
        ]
        named[name] = np.split(joined, 3)[("query", "key", "value").index(part)]
    return jina_bert_reference.last_states(own, named, ids)


def _theirs(name: str) -> str:
    """Return the name that v1 has for a tensor of Jina's BERT."""
    for ours, theirs in (
        ("embeddings.LayerNorm", "emb_ln"),
        ("encoder.layer.", "encoder.layers."),
        ("attention.output.dense", "mixer.out_proj"),
        ("attention.output.LayerNorm", "norm1"),
        ("mlp.layernorm", "norm2"),
    ):
        name = name.replace(ours, theirs)
    return name


def _alibi_shapes(config: Mapping[str, Any]) -> Shapes:
    own = {**fields(config), "type_vocab_size": 2}
    found: Shapes = {}
    for name, shape in jina_bert_reference.shapes(own).items():
        if "attention.self." not in name:
            found[PREFIX + _theirs(name)] = shape
        elif "self.query" in name:
            joined = name.replace("attention.self.query", "mixer.Wqkv")
            found[PREFIX + _theirs(joined)] = [3 * shape[0], *shape[1:]]
    return found


def _rotary_shapes(config: Mapping[str, Any]) -> Shapes:
    own = fields(config)
    size, inner = own["hidden_size"], own["intermediate_size"]
    tables = {"word_embeddings": own["vocab_size"], "token_type_embeddings": 1}
    layers = {
        "mixer.Wqkv": (3 * size, size),
        "mixer.out_proj": (size, size),
        "mlp.fc1": (inner, size),
        "mlp.fc2": (size, inner),
    }
    adapters = own["lora_adaptations"] is not None
    found: Shapes = {}
    root = f"{PREFIX}roberta."

    def matrix(name: str, rows: int, columns: int, *, is_table: bool) -> None:
        if not adapters:
            found[f"{root}{name}.weight"] = [rows, columns]
            return
        stem, rank, tasks = f"{root}{name}.parametrizations.weight.", own["lora_rank"], len(TASKS)
        found[f"{stem}original"] = [rows, columns]
        found[f"{stem}0.lora_A"] = [tasks, rows, rank] if is_table else [tasks, rank, columns]
        found[f"{stem}0.lora_B"] = [tasks, rank, columns] if is_table else [tasks, rows, rank]

    for name, rows in tables.items():
        matrix(f"embeddings.{name}", rows, size, is_table=True)
    norms = ["emb_ln"]
    for number in range(own["num_hidden_layers"]):
        layer = f"encoder.layers.{number}"
        norms += [f"{layer}.norm1", f"{layer}.norm2"]
        for name, (rows, columns) in layers.items():
            matrix(f"{layer}.{name}", rows, columns, is_table=False)
            found[f"{root}{layer}.{name}.bias"] = [rows]
    for name in norms:
        found |= {f"{root}{name}.weight": [size], f"{root}{name}.bias": [size]}
    return found


def _rotary_states(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], ids: list[int]
) -> Float64Array:
    own = fields(config)
    root = f"{PREFIX}roberta."
    wide = {name.removeprefix(root): t.astype(np.float64) for name, t in tensors.items()}
    task = own["lora_adaptations"].index(config["text_config"]["default_lora_task"])
    scaling = own["lora_alpha"] / own["lora_rank"]

    def matrix(name: str) -> Float64Array:
        stem = f"{name}.parametrizations.weight."
        a, b = (wide[f"{stem}0.lora_{part}"][task] for part in "AB")
        product = a @ b if "embeddings" in name else b @ a
        changed: Float64Array = wide[f"{stem}original"] + scaling * product
        return changed

    def linear(rows: Float64Array, name: str) -> Float64Array:
        result: Float64Array = rows @ matrix(name).T + wide[f"{name}.bias"]
        return result

    heads, count = own["num_attention_heads"], len(ids)
    words = matrix("embeddings.word_embeddings")[ids]
    state = words + matrix("embeddings.token_type_embeddings")[0]
    state = layer_norm(state, "emb_ln", wide, 1e-5)
    width = state.shape[1] // heads
    steps = own["rotary_emb_base"] ** (-np.arange(0, width, 2) / width)
    angles = np.arange(count)[:, None] * steps
    for number in range(own["num_hidden_layers"]):
        layer = f"encoder.layers.{number}"
        projected = linear(state, f"{layer}.mixer.Wqkv").reshape(count, 3, heads, width)
        query, key = (_turned(projected[:, part], angles) for part in (0, 1))
        mixed = np.empty((count, heads, width))
        for head in range(heads):
            scores = query[:, head] @ key[:, head].T / math.sqrt(width)
            mixed[:, head] = softmax(scores) @ projected[:, 2, head]
        attended = linear(mixed.reshape(count, -1), f"{layer}.mixer.out_proj")
        state = layer_norm(attended + state, f"{layer}.norm1", wide, 1e-5)
        narrow = linear(gelu(linear(state, f"{layer}.mlp.fc1")), f"{layer}.mlp.fc2")
        state = layer_norm(narrow + state, f"{layer}.norm2", wide, 1e-5)
    return state


def _turned(heads: Float64Array, angles: Float64Array) -> Float64Array:
    """Turn heads [n, heads, d] by angles [n, d / 2]: the halves of a head are the parts of complex numbers."""
    first, second = np.split(heads, 2, axis=-1)
    turned = (first + 1j * second) * np.exp(1j * angles)[:, None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)
