"""Folders whose config.json or weights say what changes vectors, and what transformers computes of them.

`python tests/model_store/truth/make_weights.py` writes `expected_weights.json` anew (needs torch, transformers and
compressed-tensors). Weights come from a seed, inputs are token ids, a vector is the mean of the last states.
transformers runs no remote code here: bidirectional decoders are its own classes with a mask that hides nothing.
Quantised weights are read back by compressed-tensors' own decompressor; those of DeepSeek's `fp8`, which it does not
have, in torch.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.export.families.weights import random_ids, random_weights  # noqa: E402 - the path comes first
from tests.support.tiny import CONFIG, bert_weights, write_json, write_tokenizer  # noqa: E402

SEED: Final = 31
EXPECTED: Final = HERE / "expected_weights.json"
IDS: Final = random_ids((3, 9, 17), 128, SEED)
DECODER: Final[Mapping[str, Any]] = {
    "model_type": "qwen2",
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "rope_theta": 10000.0,
}
LLAMA: Final = {**DECODER, "model_type": "llama"}
GTE_QWEN2: Final = {
    "AutoModel": "Alibaba-NLP/gte-Qwen2-1.5B-instruct--modeling_qwen.Qwen2Model",
    "AutoModelForCausalLM": "Alibaba-NLP/gte-Qwen2-1.5B-instruct--modeling_qwen.Qwen2ForCausalLM",
    "AutoModelForSequenceClassification": "modeling_qwen.Qwen2ForSequenceClassification",
}
REASON_IR: Final = {"AutoModel": "modeling_reasonir_8b.ReasonIRModel"}
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A folder, and how its vectors come about.

    Attributes:
        config: Content of config.json.
        overrides: What a card says.
        is_causal: Whether a token attends to earlier ones only; for decoders.
        store: What is done to the tensors before they are written.
        shards: Number of files.
        stale_index: Whether an index lies beside the single file.
    """

    config: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    is_causal: bool = True
    store: Callable[[Tensors], Tensors] = dict
    shards: int = 1
    stale_index: bool = False


def decoder(
    *, store: Callable[[Tensors], Tensors] = dict, base: Mapping[str, Any] = LLAMA, **more: Any
) -> Case:
    """Return a causal decoder's case."""
    return Case({**base, **more}, store=store)


def quantizer(
    dtype: Any,
    scale_of: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    end: str = "_scale",
    *,
    has_zeros: bool = False,
) -> Callable[[Tensors], Tensors]:
    """Return what stores the weights of linear layers in 8 bits, with scales of a shape."""

    def store(tensors: Tensors) -> Tensors:
        stored: Tensors = {}
        for name, values in tensors.items():
            if "_proj.weight" not in name:
                stored[name] = values
                continue
            scale = scale_of(values)
            wide = values / spread(scale, values.shape)
            if has_zeros:
                zeros = (np.arange(scale.size) % 23 - 11).reshape(scale.shape)
                stored[name + "_zero_point"] = zeros.astype(np.int8)
                wide += spread(zeros.astype(np.float32), values.shape)
            if dtype is np.int8:
                wide = np.clip(np.round(wide), -128, 127)
            stored[name] = wide.astype(dtype)
            stored[name + end] = scale
        return stored

    return store


def spread(scale: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Repeat scales over the groups or blocks of a weight; the last block of an axis may be cut."""
    if scale.size == 1:
        return np.full(shape, scale.reshape(()), np.float32)
    scale = scale.reshape(len(scale), -1)
    is_blocks = scale.shape == tuple(-(-n // b) for n, b in zip(shape, BLOCK, strict=True))
    block = BLOCK if is_blocks else (1, GROUP)
    for axis in (0, 1):
        if scale.shape[axis] not in (1, shape[axis]):
            scale = np.take(scale, np.arange(shape[axis]) // block[axis], axis=axis)
    return np.broadcast_to(scale, shape)


BLOCK = (16, 20)
GROUP = 8


def per_tensor(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """One scale."""
    return np.array([np.abs(values).max() / 100], np.float32)


def per_row(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scale for each row."""
    scale: NDArray[np.float32] = np.abs(values).max(1, keepdims=True) / np.float32(100)
    return scale


def per_group(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scale for each eight columns of a row."""
    groups = values.reshape(len(values), -1, GROUP)
    scale: NDArray[np.float32] = np.abs(groups).max(2) / np.float32(100)
    return scale


def per_block(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scale for each block of rows and columns; 20 divides no width, so the last blocks are narrow."""
    rows, columns = (-(-size // block) for size, block in zip(values.shape, BLOCK, strict=True))
    scale = [
        [np.abs(values[r * 16 : r * 16 + 16, c * 20 : c * 20 + 20]).max() for c in range(columns)]
        for r in range(rows)
    ]
    return np.array(scale, np.float32) / np.float32(100)


def compressed(strategy: str, kind: str = "int", **more: Any) -> dict[str, Any]:
    """Return `quantization_config` as compressed-tensors writes it."""
    weights = {
        "num_bits": 8,
        "type": kind,
        "strategy": strategy,
        "symmetric": True,
        "actorder": None,
        **more,
    }
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": {"num_bits": 8, "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": f"{kind}-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


FP8 = ml_dtypes.float8_e4m3fn
ACTIVATIONS: Final = (
    *("gelu_python", "gelu_fast", "gelu_accurate", "gelu_python_tanh", "gelu_10", "quick_gelu"),
    *("swish", "mish", "tanh", "sigmoid", "relu2", "relu6", "leaky_relu"),
)
CASES: Final[Mapping[str, Case]] = {
    "qwen2": decoder(base=DECODER),
    "qwen2, code of gte-Qwen2": Case({**DECODER, "auto_map": GTE_QWEN2}, is_causal=False),
    "qwen2, code of Stella": Case(
        {**DECODER, "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}, is_causal=False
    ),
    "qwen2, code of gte-Qwen2, is_causal": decoder(
        base=DECODER, auto_map=GTE_QWEN2, is_causal=True
    ),
    "qwen2, is_causal false": Case({**DECODER, "is_causal": False}, is_causal=False),
    "llama, unknown code that is plain": Case(
        {**LLAMA, "auto_map": REASON_IR}, overrides={"code": "plain"}
    ),
    "llama, unknown code that is bidirectional": Case(
        {**LLAMA, "auto_map": REASON_IR}, overrides={"is_causal": False}, is_causal=False
    ),
    "llama, causal by its card": Case(
        {**LLAMA, "auto_map": REASON_IR, "is_causal": False}, overrides={"is_causal": True}
    ),
    "int8 by tensor": decoder(
        store=quantizer(np.int8, per_tensor), quantization_config=compressed("tensor")
    ),
    "int8 by row": decoder(
        store=quantizer(np.int8, per_row), quantization_config=compressed("channel")
    ),
    "int8 by tensor, zero points": decoder(
        store=quantizer(np.int8, per_tensor, has_zeros=True),
        quantization_config=compressed("tensor", symmetric=False),
    ),
    "int8 by row, zero points": decoder(
        store=quantizer(np.int8, per_row, has_zeros=True),
        quantization_config=compressed("channel", symmetric=False),
    ),
    "int8 by group": decoder(
        store=quantizer(np.int8, per_group),
        quantization_config=compressed("group", group_size=GROUP),
    ),
    "int8 by group, zero points": decoder(
        store=quantizer(np.int8, per_group, has_zeros=True),
        quantization_config=compressed("group", group_size=GROUP, symmetric=False),
    ),
    "int8 by block, zero points": decoder(
        store=quantizer(np.int8, per_block, has_zeros=True),
        quantization_config=compressed("block", block_structure=[16, 20], symmetric=False),
    ),
    "int8 by block": decoder(
        store=quantizer(np.int8, per_block),
        quantization_config=compressed("block", block_structure=[16, 20]),
    ),
    "fp8 by tensor": decoder(
        store=quantizer(FP8, per_tensor), quantization_config=compressed("tensor", "float")
    ),
    "fp8 by row": decoder(
        store=quantizer(FP8, per_row), quantization_config=compressed("channel", "float")
    ),
    "fp8 by group": decoder(
        store=quantizer(FP8, per_group),
        quantization_config=compressed("group", "float", group_size=GROUP),
    ),
    "fp8 by block": decoder(
        store=quantizer(FP8, per_block),
        quantization_config=compressed("block", "float", block_structure=[16, 20]),
    ),
    "fp8 by row, naive format": decoder(
        store=quantizer(FP8, per_row),
        quantization_config={**compressed("channel", "float"), "format": "naive-quantized"},
    ),
    "fp8 by block, as DeepSeek": decoder(
        store=quantizer(FP8, per_block, "_scale_inv"),
        quantization_config={
            "quant_method": "fp8",
            "weight_block_size": [16, 20],
            "activation_scheme": "dynamic",
        },
    ),
    "a single file and a stale index": Case(LLAMA, stale_index=True),
    "two shards": Case(LLAMA, shards=2),
    **{f"bert, {name}": Case({**CONFIG, "hidden_act": name}) for name in ACTIVATIONS},
}


def float_tensors(config: Mapping[str, Any]) -> Tensors:
    """Make the tensors of a tiny model from the seed, under transformers' names."""
    if config["model_type"] == "bert":
        return dict(bert_weights(dict(config)))
    size, inner, half = 32, 48, 16
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (128, size),
        "norm.weight": (size,),
    }
    for number in range(min(config["num_hidden_layers"], 2)):
        layer = f"layers.{number}"
        for part, rows in (("q", size), ("k", half), ("v", half)):
            shapes[f"{layer}.self_attn.{part}_proj.weight"] = (rows, size)
            if config["model_type"] == "qwen2":
                shapes[f"{layer}.self_attn.{part}_proj.bias"] = (rows,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (size, size)
        for part in ("gate", "up"):
            shapes[f"{layer}.mlp.{part}_proj.weight"] = (inner, size)
        shapes[f"{layer}.mlp.down_proj.weight"] = (size, inner)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}.{norm}.weight"] = (size,)
    return dict(random_weights(shapes, SEED))


def write_case(folder: Path, case: Case) -> Path:
    """Write a case's folder as Hugging Face has it."""
    write_json(folder / "config.json", dict(case.config))
    write_json(folder / "1_Pooling/config.json", {"pooling_mode": "mean"})
    write_tokenizer(folder / "tokenizer.json")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    tensors = case.store(float_tensors(case.config))
    names = sorted(tensors)
    files = ["model.safetensors"]
    if case.shards > 1:
        files = [f"model-{n + 1:05}-of-{case.shards:05}.safetensors" for n in range(case.shards)]
    weight_map = {name: files[n % len(files)] for n, name in enumerate(names)}
    for file in files:
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    if case.stale_index:
        weight_map = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    if case.stale_index or case.shards > 1:
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return folder


def main() -> None:
    """Compute what is expected, and write it."""
    import compressed_tensors
    import torch
    import transformers

    cases = {}
    for name, case in CASES.items():
        config = {
            k: v
            for k, v in case.config.items()
            if k not in ("auto_map", "quantization_config", "is_causal")
        }
        fields = {k: v for k, v in config.items() if k != "model_type"}
        kind = transformers.AutoConfig.for_model(
            config["model_type"], **fields, attn_implementation="eager"
        )
        model = transformers.AutoModel.from_config(kind).eval()
        model.load_state_dict(_read_back(case), strict=False)
        vectors = []
        for ids in IDS:
            mask = None if case.is_causal else torch.zeros(1, 1, len(ids), len(ids))
            with torch.no_grad():
                states = model(torch.tensor([ids]), attention_mask=mask).last_hidden_state
            vectors.append([round(value, 6) for value in states[0].mean(0).tolist()])
        cases[name] = vectors
    stored = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "compressed-tensors": compressed_tensors.__version__,
        "vectors": cases,
    }
    EXPECTED.write_text(json.dumps(stored, indent=None).replace("]], ", "]],\n") + "\n")


def _read_back(case: Case) -> dict[str, Any]:
    """Read stored tensors back, quantised ones by compressed-tensors, and DeepSeek's in torch."""
    import torch
    from compressed_tensors.compressors import NaiveQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    stored = case.store(float_tensors(case.config))
    groups = case.config.get("quantization_config", {}).get("config_groups")
    scheme = groups and QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(**groups["group_0"]["weights"])
    )
    state = {}
    for name, values in stored.items():
        if name + "_scale_inv" in stored:
            scale = spread(stored[name + "_scale_inv"], values.shape)
            state[name] = torch.from_numpy(values.astype(np.float32) * scale)
        elif name + "_scale" in stored:
            parts = {
                "weight" + end: _as_torch(stored[name + end])
                for end in ("", "_scale", "_zero_point")
                if name + end in stored
            }
            state[name] = NaiveQuantizationCompressor.decompress(parts, scheme)["weight"]
        elif not name.endswith(("_scale", "_zero_point", "_scale_inv")):
            state[name] = torch.from_numpy(np.ascontiguousarray(values))
    return state


def _as_torch(values: NDArray[Any]) -> Any:
    """Hand an array over; numpy and torch share no float of 8 bits, so those go by their bytes."""
    import torch

    if values.dtype == FP8:
        return torch.from_numpy(values.view(np.uint8)).view(torch.float8_e4m3fn)
    return torch.from_numpy(np.ascontiguousarray(values))


if __name__ == "__main__":
    main()
