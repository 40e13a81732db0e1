"""Tiny models of nomic-embed-vision, and what a plain numpy reference gives for them.

The reference is written from the description of the model (arXiv:2406.18587, arXiv:2303.11331) and knows nothing of the
exporter; `make_nomic.py` compares it with the authors' published code.
"""

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.export.families.weights import random_weights
from tests.support.tiny import write_json

SEED: Final = 29
IMAGE, PATCH, WIDTH = 32, 8, 32
PUBLISHED: Final[dict[str, Any]] = {
    "model_type": "nomic_bert",
    "architectures": ["NomicVisionModel"],
    "activation_function": "swiglu",
    "n_embd": WIDTH,
    "n_head": 2,
    "n_inner": 40.0,
    "n_layer": 2,
    "n_positions": 0,
    "vocab_size": 0,
    "img_size": IMAGE,
    "patch_size": PATCH,
    "num_channels": 3,
    "layer_norm_epsilon": 1e-6,
    "learned_pos_embedding": False,
    "use_pos_embed": True,
    "use_rotary_pos_emb": True,
    "ref_feat_shape": [4, 4],
    "rotary_emb_fraction": 0,
    "prenorm": True,
    "norm_mlp": True,
    "no_last_ln": True,
    "no_cls_token": False,
    "no_embed_class": False,
    "register_tokens": 0,
    "mask_token": False,
    "patch_embed_bias": True,
    "qkv_proj_bias": True,
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "global_pool": None,
    "layer_scale": False,
    "parallel_block": False,
    "causal": False,
    "use_rms_norm": False,
    "use_flash_attn": False,
}
# The published model's fields, and others that its code reads.
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "published": PUBLISHED,
    "stretched": {
        **PUBLISHED,
        "ref_feat_shape": [7, 5],
        "activation_function": "geglu",
        "n_inner": None,
        "norm_mlp": False,
        "mlp_fc1_bias": False,
        "learned_pos_embedding": True,
    },
    "plain": {
        **PUBLISHED,
        "activation_function": "gelu",
        "n_inner": 40,
        "use_rotary_pos_emb": False,
        "qkv_proj_bias": False,
        "patch_embed_bias": False,
        "n_head": 4,
    },
    "unplaced": {
        **PUBLISHED,
        "activation_function": "glu",
        "use_pos_embed": False,
        "ref_feat_shape": None,
        "mlp_fc2_bias": False,
    },
}
PROCESSOR: Final[dict[str, Any]] = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"height": IMAGE, "width": IMAGE},
    "do_center_crop": True,
    "crop_size": {"height": IMAGE, "width": IMAGE},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
}
Tensors = dict[str, NDArray[np.float32]]
Array = NDArray[np.float64]


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors by their names in the published checkpoint."""
    gated = config["activation_function"] != "gelu"
    inner = config["n_inner"] or int(8 * WIDTH / 3)
    inner = math.ceil(inner / 256) * 256 if gated else int(inner)
    linears = {"embeddings.proj": (WIDTH, 3 * PATCH * PATCH, "patch_embed_bias")}
    norms = {"selector.norm1": WIDTH}
    for number in range(config["n_layer"]):
        layer = f"layers.{number}"
        linears[f"{layer}.attn.Wqkv"] = (3 * WIDTH, WIDTH, "qkv_proj_bias")
        linears[f"{layer}.attn.out_proj"] = (WIDTH, WIDTH, "qkv_proj_bias")
        norms |= {f"{layer}.norm1": WIDTH, f"{layer}.norm2": WIDTH}
        if gated and config["norm_mlp"]:
            norms[f"{layer}.mlp.norm"] = inner
    linears["selector.attn.Wq"] = (WIDTH, WIDTH, "qkv_proj_bias")
    linears["selector.attn.Wkv"] = (2 * WIDTH, WIDTH, "qkv_proj_bias")
    linears["selector.attn.out_proj"] = (WIDTH, WIDTH, "qkv_proj_bias")
    for mlp in [f"layers.{n}.mlp" for n in range(config["n_layer"])] + ["selector.mlp"]:
        for part in ("fc11", "fc12") if gated else ("fc1",):
            linears[f"{mlp}.{part}"] = (inner, WIDTH, "mlp_fc1_bias")
        linears[f"{mlp}.fc2"] = (WIDTH, inner, "mlp_fc2_bias")
    found: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "selector.attn.latent": (1, 1, WIDTH),
    }
    if config["use_pos_embed"]:
        found["embeddings.pos_embed"] = (1, (IMAGE // PATCH) ** 2 + 1, WIDTH)
    for name, (rows, columns, bias) in linears.items():
        found[f"{name}.weight"] = (rows, columns)
        if config[bias]:
            found[f"{name}.bias"] = (rows,)
    for name, width in norms.items():
        found |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return found


def tensors(config: dict[str, Any]) -> Tensors:
    """Return the weights of a tiny model."""
    return random_weights(shapes(config), SEED)


def write_vision(folder: Path, kind: str = "published", **processor: Any) -> Path:
    """Write a tiny model as its checkpoints lie on the Hub, without tokenizer.

    Args:
        folder: Where.
        kind: A key of `CONFIGS`.
        processor: Other fields of preprocessor_config.json.
    """
    write_json(folder / "config.json", CONFIGS[kind])
    write_json(folder / "preprocessor_config.json", {**PROCESSOR, **processor})
    save_file(tensors(CONFIGS[kind]), folder / "model.safetensors")
    return folder


def some_pixels() -> NDArray[np.uint8]:
    """Return bytes of three pictures, (B, S, S, 3)."""
    return np.random.default_rng(5).integers(0, 256, (3, IMAGE, IMAGE, 3), np.uint8)


def scaled(pixels: NDArray[np.uint8]) -> Array:
    """Scale bytes as `PROCESSOR` says, [B, S, S, 3] to [B, 3, S, S]."""
    mean, std = (np.array(PROCESSOR[name]) for name in ("image_mean", "image_std"))
    found: Array = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    return found


def reference(config: dict[str, Any], pixels: Array) -> Array:
    """Compute unit vectors, [B, H], of scaled pixels [B, 3, S, S], in float64."""
    weights = {name: value.astype(np.float64) for name, value in tensors(config).items()}

    def linear(rows: Array, name: str) -> Array:
        product: Array = rows @ weights[f"{name}.weight"].T
        return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product

    def norm(rows: Array, name: str, epsilon: float) -> Array:
        centred = rows - rows.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        normed: Array = unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return normed

    def mlp(rows: Array, name: str, *, is_normed: bool) -> Array:
        kind = config["activation_function"]
        if kind == "gelu":
            return linear(gelu(linear(rows, f"{name}.fc1")), f"{name}.fc2")
        gates = {"swiglu": lambda x: x * sigmoid(x), "geglu": gelu, "glu": sigmoid}
        value = linear(rows, f"{name}.fc11") * gates[kind](linear(rows, f"{name}.fc12"))
        if is_normed:
            value = norm(value, f"{name}.norm", 1e-5)
        return linear(value, f"{name}.fc2")

    heads, epsilon = config["n_head"], config["layer_norm_epsilon"]
    grid = IMAGE // PATCH
    vectors = []
    for picture in pixels:
        cut = picture.reshape(3, grid, PATCH, grid, PATCH).transpose(1, 3, 0, 2, 4)
        state = linear(cut.reshape(grid * grid, -1), "embeddings.proj")
        state = np.concatenate([weights["embeddings.cls_token"][0], state])
        if config["use_pos_embed"]:
            state = state + weights["embeddings.pos_embed"][0]
        for number in range(config["n_layer"]):
            name = f"layers.{number}"
            projected = linear(norm(state, f"{name}.norm1", epsilon), f"{name}.attn.Wqkv")
            query, key, value = np.split(projected, 3, axis=1)
            query, key, value = (split(part, heads) for part in (query, key, value))
            if config["use_rotary_pos_emb"]:
                query, key = turned(query, config, grid), turned(key, config, grid)
            mixed = attend(query, key, value)
            state = state + linear(mixed, f"{name}.attn.out_proj")
            normed = norm(state, f"{name}.norm2", epsilon)
            state = state + mlp(normed, f"{name}.mlp", is_normed=bool(config["norm_mlp"]))
        query = linear(weights["selector.attn.latent"][0], "selector.attn.Wq")
        key, value = np.split(linear(state, "selector.attn.Wkv"), 2, axis=1)
        mixed = attend(*(split(part, heads) for part in (query, key, value)))
        normed = norm(linear(mixed, "selector.attn.out_proj"), "selector.norm1", epsilon)
        vectors.append(state[0] + mlp(normed, "selector.mlp", is_normed=False)[0])
    found = np.stack(vectors)
    unit: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def split(rows: Array, heads: int) -> Array:
    """Split rows [n, H] into heads, [heads, n, d]."""
    return rows.reshape(len(rows), heads, -1).swapaxes(0, 1)


def attend(query: Array, key: Array, value: Array) -> Array:
    """Attend head by head, and join the heads: [heads, n, d] of each to [n, H]."""
    scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = shares / shares.sum(-1, keepdims=True) @ value
    joined: Array = mixed.swapaxes(0, 1).reshape(query.shape[1], -1)
    return joined


def turned(heads: Array, config: dict[str, Any], grid: int) -> Array:
    """Turn neighbouring channels of all tokens but the first as complex numbers, by row and then by column."""
    width = heads.shape[-1]
    trained = config["ref_feat_shape"] or [grid, grid]
    turned = heads.copy()
    for number in range(grid * grid):
        places = number // grid / grid * trained[0], number % grid / grid * trained[1]
        angles = [p * 10000.0 ** (-4 * i / width) for p in places for i in range(width // 4)]
        pairs = heads[:, number + 1, 0::2] + 1j * heads[:, number + 1, 1::2]
        pairs = pairs * np.exp(1j * np.array(angles))
        turned[:, number + 1, 0::2], turned[:, number + 1, 1::2] = pairs.real, pairs.imag
    return turned


def sigmoid(values: Array) -> Array:
    """Compute the logistic function."""
    result: Array = 1 / (1 + np.exp(-values))
    return result


def gelu(values: Array) -> Array:
    """Compute GELU by the error function."""
    result: Array = values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))
    return result
