"""Tiny models of jina-clip, and what a plain numpy reference gives for their pictures.

The reference is written from the description of the model (arXiv:2405.20204, arXiv:2412.08802, arXiv:2303.11331) and
knows nothing of the exporter.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.export.families import jina_clip_reference
from tests.export.families.reference_layers import gelu, layer_norm
from tests.export.families.weights import random_weights
from tests.model_store.two_towers.nomic.nomic_vision import attend, sigmoid, split
from tests.support.tiny import write_json, write_tokenizer

SEED: Final = 31
# Pixels beyond a whole number of patches are left out, as of v2's 512 in patches of 14.
IMAGE, PATCH, WIDTH, SIDE = 34, 8, 32, 4
Array = NDArray[np.float64]
VISION: Final[dict[str, Any]] = {
    "model_type": "jina_clip_vision",
    "embed_dim": 32,
    "width": WIDTH,
    "image_size": IMAGE,
    "patch_size": PATCH,
    "layers": 2,
    "head_width": 8,
    "mlp_ratio": 2.6667,
    "ls_init_value": None,
    "patch_dropout": 0.1,
    "qkv_bias": True,
    "fused_layer_norm": False,
    "x_attention": True,
    "post_norm": False,
    "rope_embeddings": True,
    "pt_hw_seq_len": 3,
    "intp_freq": True,
    "naive_swiglu": True,
    "subln": True,
    "proj_type": None,
}
# Both versions' kinds, and other fields that the authors' code reads.
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "v2": {**jina_clip_reference.ROTARY, "vision_config": VISION},
    "v1": {
        **jina_clip_reference.ALIBI,
        "vision_config": {**VISION, "intp_freq": False, "pt_hw_seq_len": SIDE},
    },
    "projected": {
        **jina_clip_reference.ROTARY,
        "add_projections": True,
        "projection_dim": 24,
        "matryoshka_dimensions": [8, 24],
        "text_config": {
            **jina_clip_reference.ROTARY["text_config"],
            "embed_dim": 20,
            "proj_type": "linear",
            "proj_bias": True,
            "pooler_type": "cls_pooler",
        },
        "vision_config": {
            **VISION,
            "embed_dim": 40,
            "proj_type": "linear",
            "subln": False,
            "ls_init_value": 0.1,
            "post_norm": True,
            "naive_swiglu": False,
            "rope_embeddings": False,
        },
    },
    "bare": {
        **jina_clip_reference.ROTARY,
        "text_config": {
            **jina_clip_reference.ROTARY["text_config"],
            "proj_type": "mlp",
            "pooler_type": "max_pooler",
        },
        "vision_config": {**VISION, "naive_swiglu": False, "qkv_bias": False},
    },
}
PROCESSOR: Final[dict[str, Any]] = {
    "image_processor_type": "JinaCLIPImageProcessor",
    "size": IMAGE,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "resize_mode": "shortest",
    "interpolation": "bicubic",
    "fill_color": 0,
}


def vision_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Return the shapes of the tensors of a tower of pictures, by their names in the published checkpoint."""
    sizes = config["vision_config"]
    inner = int(WIDTH * sizes["mlp_ratio"])
    linears: dict[str, list[int]] = {}
    norms: dict[str, int] = {"norm": WIDTH}
    found: dict[str, list[int]] = {
        "cls_token": [1, 1, WIDTH],
        "pos_embed": [1, SIDE * SIDE + 1, WIDTH],
        "patch_embed.proj.weight": [WIDTH, 3, PATCH, PATCH],
        "patch_embed.proj.bias": [WIDTH],
    }
    for number in range(sizes["layers"]):
        layer = f"blocks.{number}"
        norms |= {f"{layer}.norm1": WIDTH, f"{layer}.norm2": WIDTH}
        if sizes["subln"]:
            norms |= {f"{layer}.attn.inner_attn_ln": WIDTH, f"{layer}.mlp.ffn_ln": inner}
            for part in "qkv":
                found[f"{layer}.attn.{part}_proj.weight"] = [WIDTH, WIDTH]
        else:
            found[f"{layer}.attn.qkv.weight"] = [3 * WIDTH, WIDTH]
        if sizes["qkv_bias"]:
            found |= {f"{layer}.attn.{part}_bias": [WIDTH] for part in "qv"}
        if sizes["ls_init_value"]:
            found |= {f"{layer}.gamma_{part}": [WIDTH] for part in (1, 2)}
        linears[f"{layer}.attn.proj"] = [WIDTH, WIDTH]
        up = ("w1", "w2") if sizes["naive_swiglu"] else ("fc1",)
        linears |= {f"{layer}.mlp.{part}": [inner, WIDTH] for part in up}
        linears[f"{layer}.mlp.{'w3' if sizes['naive_swiglu'] else 'fc2'}"] = [WIDTH, inner]
    if sizes["proj_type"] == "linear":
        linears["head"] = [sizes["embed_dim"], WIDTH]
    for name, shape in linears.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in norms.items():
        found |= {f"{name}.weight": [width], f"{name}.bias": [width]}
    return {f"vision_model.{name}": shape for name, shape in found.items()}


def shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Return the shapes of all tensors of a model."""
    text, size = config["text_config"], config["text_config"]["embed_dim"]
    found = {**jina_clip_reference.shapes(config), **vision_shapes(config)}
    kind = text.get("proj_type")
    if kind == "linear":
        found |= {"text_model.proj.weight": [size, WIDTH], "text_model.proj.bias": [size]}
    elif kind == "mlp":
        inner = (WIDTH + size) // 2
        found |= {"text_model.proj.0.weight": [inner, WIDTH]}
        found |= {"text_model.proj.2.weight": [size, inner]}
    if config.get("add_projections"):
        wide = config["projection_dim"]
        found["text_projection.weight"] = [wide, size]
        found["visual_projection.weight"] = [wide, config["vision_config"]["embed_dim"]]
    return found


def tensors(config: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a tiny model."""
    return random_weights(shapes(config), SEED)


def write_jina(folder: Path, kind: str, **processor: Any) -> Path:
    """Write a tiny model as its checkpoints lie on the Hub.

    Args:
        folder: Where.
        kind: A key of `CONFIGS`.
        processor: Other fields of preprocessor_config.json.
    """
    code = "jinaai/jina-clip-implementation--"
    auto_map = {
        "AutoConfig": f"{code}configuration_clip.JinaCLIPConfig",
        "AutoModel": f"{code}modeling_clip.JinaCLIPModel",
    }
    write_json(folder / "config.json", {**CONFIGS[kind], "auto_map": auto_map})
    write_json(folder / "preprocessor_config.json", {**PROCESSOR, **processor})
    chain = [
        ("", "custom_st.Transformer"),
        ("1_Normalize", "sentence_transformers.models.Normalize"),
    ]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": kind}
        for n, (path, kind) in enumerate(chain)
    ]
    write_json(folder / "modules.json", modules)
    write_tokenizer(folder / "tokenizer.json")
    save_file(tensors(CONFIGS[kind]), folder / "model.safetensors")
    return folder


def some_pixels() -> NDArray[np.uint8]:
    """Return bytes of three pictures, (B, S, S, 3)."""
    return np.random.default_rng(5).integers(0, 256, (3, IMAGE, IMAGE, 3), np.uint8)


def scaled(pixels: NDArray[np.uint8]) -> Array:
    """Scale bytes as `PROCESSOR` says, [B, S, S, 3] to [B, 3, S, S]."""
    mean, std = (np.array(PROCESSOR[name]) for name in ("mean", "std"))
    found: Array = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    return found


def text_reference(config: dict[str, Any], inputs: list[list[int]]) -> Array:
    """Compute unit vectors, [B, D], of texts' token ids, in float64."""
    weights = tensors(config)
    wide = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    text, vectors = config["text_config"], []
    pool = {
        "mean_pooler": lambda states: states.mean(0),
        "cls_pooler": lambda states: states[0],
        "max_pooler": lambda states: states.max(0),
    }
    for ids in inputs:
        value = pool[text["pooler_type"]](jina_clip_reference.last_states(config, weights, ids))
        if text.get("proj_type") == "linear":
            value = wide["text_model.proj.weight"] @ value + wide["text_model.proj.bias"]
        elif text.get("proj_type") == "mlp":
            value = wide["text_model.proj.2.weight"] @ gelu(
                wide["text_model.proj.0.weight"] @ value
            )
        if config.get("add_projections"):
            value = wide["text_projection.weight"] @ value
        vectors.append(value / np.linalg.norm(value))
    return np.stack(vectors)


def picture_reference(config: dict[str, Any], pixels: Array) -> Array:
    """Compute unit vectors, [B, D], of scaled pixels [B, 3, S, S], in float64."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors(config).items()}
    own = {name.removeprefix("vision_model."): tensor for name, tensor in wide.items()}
    tower = EvaReference(config["vision_config"], own)
    vectors = []
    for picture in pixels:
        vector = tower.vector(picture)
        if config.get("add_projections"):
            vector = vector @ wide["visual_projection.weight"].T
        vectors.append(vector / np.linalg.norm(vector))
    return np.stack(vectors)


@dataclass(frozen=True)
class EvaReference:
    """An EVA-02 in numpy, float64.

    Attributes:
        sizes: The tower's fields.
        weights: Its tensors by name.
    """

    sizes: dict[str, Any]
    weights: dict[str, Array]

    def vector(self, picture: Array) -> Array:
        """Compute the vector, [E], of a picture's scaled pixels [3, S, S]."""
        weights, sizes = self.weights, self.sizes
        kernel = weights["patch_embed.proj.weight"].reshape(WIDTH, -1)
        used = picture[:, : SIDE * PATCH, : SIDE * PATCH]
        cut = used.reshape(3, SIDE, PATCH, SIDE, PATCH).transpose(1, 3, 0, 2, 4)
        state = cut.reshape(SIDE * SIDE, -1) @ kernel.T + weights["patch_embed.proj.bias"]
        state = np.concatenate([weights["cls_token"][0], state]) + weights["pos_embed"][0]
        for number in range(sizes["layers"]):
            state = self.added(state, f"blocks.{number}", 1, "attn")
            state = self.added(state, f"blocks.{number}", 2, "mlp")
        vector = self.norm(state, "norm")[:1]
        if sizes["proj_type"] == "linear":
            vector = self.linear(vector, "head")
        first: Array = vector[0]
        return first

    def added(self, state: Array, layer: str, number: int, part: str) -> Array:
        """Add what a part of a layer makes of a state."""
        run = self.attention if part == "attn" else self.mlp
        if self.sizes["post_norm"]:
            value = self.norm(run(state, f"{layer}.{part}"), f"{layer}.norm{number}")
        else:
            value = run(self.norm(state, f"{layer}.norm{number}"), f"{layer}.{part}")
        if self.sizes["ls_init_value"]:
            value = value * self.weights[f"{layer}.gamma_{number}"]
        return state + value

    def linear(self, rows: Array, name: str) -> Array:
        """Multiply rows, and add the bias."""
        product: Array = rows @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return product

    def norm(self, rows: Array, name: str, epsilon: float = 1e-6) -> Array:
        """Bring each row to mean 0 and variance 1, then scale and move it."""
        return layer_norm(rows, name, self.weights, epsilon)

    def attention(self, rows: Array, name: str) -> Array:
        """Attend to all tokens."""
        joined = self.weights.get(f"{name}.qkv.weight")
        if joined is None:
            matrices = [self.weights[f"{name}.{part}_proj.weight"] for part in "qkv"]
        else:
            matrices = np.split(joined, 3)
        heads = []
        for part, matrix in zip("qkv", matrices, strict=True):
            value = rows @ matrix.T + self.weights.get(f"{name}.{part}_bias", np.zeros(1))
            value = split(value, WIDTH // self.sizes["head_width"])
            heads.append(value if part == "v" else _turned(value, self.sizes))
        mixed = attend(*heads)
        if self.sizes["subln"]:
            mixed = self.norm(mixed, f"{name}.inner_attn_ln")
        return self.linear(mixed, f"{name}.proj")

    def mlp(self, rows: Array, name: str) -> Array:
        """Put each token through the MLP."""
        if self.sizes["naive_swiglu"]:
            gate = self.linear(rows, f"{name}.w1")
            value = gate * sigmoid(gate) * self.linear(rows, f"{name}.w2")
            last, epsilon = "w3", 1e-6
        else:
            value, last, epsilon = gelu(self.linear(rows, f"{name}.fc1")), "fc2", 1e-5
        if self.sizes["subln"]:
            value = self.norm(value, f"{name}.ffn_ln", epsilon)
        return self.linear(value, f"{name}.{last}")


def _turned(heads: Array, sizes: dict[str, Any]) -> Array:
    """Turn neighbouring channels of all tokens but the first as complex numbers, by row and then by column."""
    if not sizes["rope_embeddings"]:
        return heads
    width, trained = heads.shape[-1], sizes["pt_hw_seq_len"]
    turned = heads.copy()
    for number in range(SIDE * SIDE):
        places = number // SIDE / SIDE * trained, number % SIDE / SIDE * trained
        angles = [p * math.pow(10000, -4 * i / width) for p in places for i in range(width // 4)]
        pairs = heads[:, number + 1, 0::2] + 1j * heads[:, number + 1, 1::2]
        pairs = pairs * np.exp(1j * np.array(angles))
        turned[:, number + 1, 0::2], turned[:, number + 1, 1::2] = pairs.real, pairs.imag
    return turned
