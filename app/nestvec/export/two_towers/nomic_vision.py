"""What nomic-embed-vision is built from, out of the fields of its config.json.

Source: Nomic Embed Vision (arXiv:2406.18587); names and defaults as in `NomicVisionModel` of the authors' code,
which is published beside the weights, and in the classes of its configuration (`NomicBertConfig`, `GPT2Config`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import boolean, check_fixed, positive, positive_number

# Fields that the authors' code gives other pictures' vectors for, or fails with, and the one value that is supported.
FIXED: Final[Mapping[str, object]] = {
    "num_channels": 3,
    "prenorm": True,
    "no_cls_token": False,
    "no_embed_class": False,
    "register_tokens": 0,
    "sinusoidal_pos_embedding": False,
    "rotary_emb_fraction": 0,
    "use_rms_norm": False,
    "causal": False,
    # What other models of the same code have, and this one's class does not look at.
    "parallel_block": False,
    "layer_scale": False,
    "prepre_layernom": False,
    "eva_qkv_bias": False,
    "no_last_ln": True,
    "hidden_features_scaling_factor": 1.0,
    "num_experts": 0,
}
# Activation of a gated MLP's gate, by the authors' name of the whole; then that of a plain one.
GATES: Final[Mapping[str, str]] = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
PLAIN: Final = "gelu"
INNER_MULTIPLE: Final = 256  # a gated MLP's width is rounded up to one
NAME: Final = "NomicVisionModel"


@dataclass(frozen=True, slots=True)
class NomicVisionSizes:
    """What the graph of pictures depends on.

    Attributes:
        image_size: Width and height of a picture in pixels, S.
        patch_size: Width and height of a patch in pixels.
        hidden_act: Activation of the MLP, or of its gate.
        is_gated: Whether the MLP is gated.
        norms_mlp: Whether layers' MLPs have a norm before their last layer; the pooling's has none.
        has_positions: Whether an embedding of its place is added to each token.
        trained_grid: Rows and columns of patches that rotary positions were trained with; None for no such positions.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float
    image_size: int
    patch_size: int
    hidden_act: str
    is_gated: bool
    norms_mlp: bool
    has_projection_bias: bool
    has_mlp_up_bias: bool
    has_mlp_down_bias: bool
    has_patch_bias: bool
    has_positions: bool
    trained_grid: tuple[int, int] | None

    @property
    def side_patches(self) -> int:
        """Number of patches in a row, and of rows."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Number of tokens of a picture: its patches, and a class token."""
        return self.side_patches**2 + 1

    @property
    def work(self) -> float:
        """What a token costs, up to a factor: the products of the layers."""
        size, inner = self.hidden_size, self.intermediate_size
        return self.num_hidden_layers * size * (4.0 * size + (3 if self.is_gated else 2) * inner)


def is_nomic_vision(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of nomic-embed-vision: its `model_type` is the texts' model's too."""
    names = config.get("architectures")
    return config.get("model_type") == "nomic_bert" and (
        (isinstance(names, list) and NAME in names) or "img_size" in config
    )


def read_nomic_vision(config: Mapping[str, Any]) -> NomicVisionSizes:
    """Read the sizes from a config.json.

    Raises:
        FormatError: A field is missing, of the wrong type, or has a value that is not supported.
    """
    check_fixed(config, FIXED)
    if config.get("global_pool"):
        raise FormatError(
            "config.json: 'global_pool' must be null: the pooling attends to all tokens"
        )
    size = positive(config, "n_embd", 768)
    heads = positive(config, "n_head", 12)
    if config.get("num_heads_kv") not in (None, heads):
        raise FormatError(f"config.json: 'num_heads_kv' must be {heads}, as 'n_head' is")
    act = config.get("activation_function")
    if not isinstance(act, str) or act not in (*GATES, PLAIN):
        raise FormatError(
            f"config.json: 'activation_function' must be one of {', '.join((*GATES, PLAIN))}"
        )
    image_size, patch_size = positive(config, "img_size"), positive(config, "patch_size")
    if image_size % patch_size:
        raise FormatError("config.json: 'patch_size' must divide 'img_size'")
    is_rotated = boolean(config, "use_rotary_pos_emb", default=False)
    if size % heads or (is_rotated and size // heads % 4):
        raise FormatError("config.json: 'n_head' must divide 'n_embd' into multiples of 4")
    grid = image_size // patch_size
    return NomicVisionSizes(
        hidden_size=size,
        intermediate_size=_inner_size(config, size, is_gated=act in GATES),
        num_hidden_layers=positive(config, "n_layer", 12),
        num_attention_heads=heads,
        layer_norm_eps=positive_number(config, "layer_norm_epsilon", 1e-5),
        image_size=image_size,
        patch_size=patch_size,
        hidden_act=GATES.get(act, act),
        is_gated=act in GATES,
        norms_mlp=act in GATES and boolean(config, "norm_mlp", default=False),
        has_projection_bias=boolean(config, "qkv_proj_bias", default=True),
        has_mlp_up_bias=boolean(config, "mlp_fc1_bias", default=True),
        has_mlp_down_bias=boolean(config, "mlp_fc2_bias", default=True),
        has_patch_bias=boolean(config, "patch_embed_bias", default=True),
        has_positions=boolean(config, "use_pos_embed", default=True),
        trained_grid=_trained_grid(config, grid) if is_rotated else None,
    )


def _inner_size(config: Mapping[str, Any], size: int, *, is_gated: bool) -> int:
    """Read the width of the MLPs, which the published file writes as 2048.0."""
    value = config.get("n_inner")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    default = int(8 * size / 3) if is_gated else 4 * size
    inner = positive({"n_inner": value}, "n_inner", default)
    return -(-inner // INNER_MULTIPLE) * INNER_MULTIPLE if is_gated else inner


def _trained_grid(config: Mapping[str, Any], grid: int) -> tuple[int, int]:
    """Read how many rows and columns of patches there were in training; as many as there are where nothing is said."""
    value = config.get("ref_feat_shape")
    if value is None:
        return grid, grid
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2:  # noqa: PLR2004 - rows and columns
        raise FormatError("config.json: 'ref_feat_shape' must be a number of rows and of columns")
    rows, columns = (positive({"ref_feat_shape": side}, "ref_feat_shape") for side in sides)
    return rows, columns
