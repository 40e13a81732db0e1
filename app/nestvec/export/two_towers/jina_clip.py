"""What jina-clip's two towers are built from, out of the nested fields of a config.json.

Source: jina-clip-v1 (arXiv:2405.20204), jina-clip-v2 (arXiv:2412.08802); names and defaults as in
`configuration_clip.py` of jinaai/jina-clip-implementation, whose files leave out what has its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import boolean, positive, positive_number

JINA_CLIP: Final = "jina_clip"
# The models that a tower of texts is made like, by the name in `hf_model_name_or_path`, with the fields of their own
# config.json, which is not in the folder; `hf_model_config_kwargs` says others.
TEXT_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    # jina-clip-v1: BERT with ALiBi and a gated MLP, as in jina-embeddings-v2 (arXiv:2310.19923).
    "jinaai/jina-bert-flash-implementation": {
        "model_type": "bert",
        "vocab_size": 30528,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 8192,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "mlp_type": "glu",
        "use_qk_norm": False,
        "window_size": [-1, -1],
        "pad_token_id": 0,
    },
    # jina-clip-v2: XLM-RoBERTa with rotary positions and adapters (arXiv:2409.10173).
    "jinaai/jina-embeddings-v3": {
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 8194,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "position_embedding_type": "rotary",
        "rotary_emb_base": 20000.0,
        "pad_token_id": 1,
        "lora_adaptations": None,
        "lora_rank": 4,
        "lora_alpha": 1,
        "task_instructions": None,
    },
}
# The one value that is supported of what would make another tower.
FIXED_TEXT: Final[Mapping[str, Any]] = {
    "model_type": None,
    "mlp_type": "glu",
    "use_qk_norm": False,
    "window_size": [-1, -1],
    "position_embedding_type": "rotary",
}
# Of `hf_model_config_kwargs`: for training, or how a model is computed and not what.
NO_EFFECT: Final = frozenset(
    {
        *("use_flash_attn", "load_trained_adapters", "lora_dropout_p", "torch_dtype"),
        *("lora_main_params_trainable", "use_cache", "use_reentrant", "matryoshka_dimensions"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
        *("initializer_range", "bos_token_id", "eos_token_id", "emb_pooler", "truncate_dim"),
    }
)
# Poolings by the authors' names, and those of each kind of model where nothing is said.
POOLERS: Final = {"mean_pooler": "mean", "cls_pooler": "cls", "max_pooler": "max"}
DEFAULT_POOLERS: Final = {"bert": "cls_pooler", "xlm-roberta": "mean_pooler"}
VISION_DEFAULTS: Final[Mapping[str, Any]] = {
    "embed_dim": 768,
    "width": 768,
    "image_size": 224,
    "patch_size": 16,
    "layers": 12,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "pt_hw_seq_len": 16,
}
EMBED_DIM: Final = 768  # of either tower, where a file does not say; the width of projections too


@dataclass(frozen=True, slots=True)
class JinaAdapter:
    """The adapter that all texts go through.

    Attributes:
        task: Its number among the model's.
        tasks: How many the model has.
        rank: Width of its matrices.
        scaling: What their product is multiplied by.
    """

    task: int
    tasks: int
    rank: int
    scaling: float


@dataclass(frozen=True, slots=True)
class JinaText:
    """The tower of texts.

    Attributes:
        config: Fields of the model that it is made like.
        pooling: Key of `pooling.POOLINGS`.
        embed_dim: Width of what it gives.
        projection: "linear" or "mlp" behind the pooling, "" for nothing.
        has_projection_bias: Whether those layers have biases.
        adapter: What all texts go through; None for nothing.
        instructions: Text before an input by task, for those who ask.
    """

    config: Mapping[str, Any]
    pooling: str
    embed_dim: int
    projection: str
    has_projection_bias: bool
    adapter: JinaAdapter | None = None
    instructions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_bert(self) -> bool:
        """Whether it is jina-clip-v1's, with ALiBi; otherwise it has rotary positions."""
        return bool(self.config["model_type"] == "bert")

    @property
    def work(self) -> float:
        """What a token costs, up to a factor: the products of the layers."""
        size, inner = (positive(self.config, name) for name in ("hidden_size", "intermediate_size"))
        layers = positive(self.config, "num_hidden_layers")
        return layers * size * (4.0 * size + (3 if self.is_bert else 2) * inner)


@dataclass(frozen=True, slots=True)
class JinaVision:
    """The tower of pictures, an EVA-02.

    Attributes:
        embed_dim: Width of what it gives.
        has_head: Whether a layer makes that of the class token's state.
        layer_scale: Whether what each part of a layer adds is multiplied by learned numbers.
        norms_behind: Whether a layer norms what its parts give, and not what they take.
        is_gated: Whether MLPs are gated, by SiLU; others have GELU.
        has_inner_norms: Whether attention and MLPs have a norm before their last layer.
        trained_side: Rows and columns of patches that rotary positions were trained with; 0 for no such positions.
    """

    embed_dim: int
    width: int
    image_size: int
    patch_size: int
    layers: int
    heads: int
    intermediate_size: int
    has_head: bool
    has_bias: bool
    layer_scale: bool
    norms_behind: bool
    is_gated: bool
    has_inner_norms: bool
    trained_side: int

    @property
    def side_patches(self) -> int:
        """Number of patches in a row, and of rows; pixels beyond a whole number of patches are left out."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Number of tokens of a picture: its patches, and a class token."""
        return self.side_patches**2 + 1

    @property
    def work(self) -> float:
        """What a token costs, up to a factor: the products of the layers."""
        inner = (3 if self.is_gated else 2) * self.intermediate_size
        return self.layers * self.width * (4.0 * self.width + inner)


def projected_size(config: Mapping[str, Any]) -> int:
    """Return the width of the vectors that both towers give, D, from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or the towers differ and nothing projects them.
    """
    text, vision = (
        positive(_nested(config, name), "embed_dim", EMBED_DIM)
        for name in ("text_config", "vision_config")
    )
    if has_projections(config):
        return positive(config, "projection_dim", EMBED_DIM)
    if text != vision:
        raise FormatError(
            f"config.json: 'embed_dim' of texts is {text} and of pictures {vision}, without 'add_projections'"
        )
    return text


def has_projections(config: Mapping[str, Any]) -> bool:
    """Whether a layer without a bias stands behind each tower.

    Raises:
        FormatError: The field is of the wrong type.
    """
    return boolean(config, "add_projections", default=False)


def read_jina_text(config: Mapping[str, Any]) -> JinaText:
    """Read the tower of texts from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    if config.get("truncate_dim") is not None:
        raise FormatError("config.json: 'truncate_dim' must be null: requests say their dimensions")
    nested = _nested(config, "text_config")
    if nested.get("default_instruction_task") is not None:
        raise FormatError("config.json: text_config 'default_instruction_task' must be null")
    fields = _text_fields(nested)
    name = nested.get("pooler_type") or DEFAULT_POOLERS[fields["model_type"]]
    if not isinstance(name, str) or name not in POOLERS:
        raise FormatError(
            f"config.json: text_config 'pooler_type' must be one of {', '.join(POOLERS)}"
        )
    size = positive(nested, "embed_dim", EMBED_DIM)
    kind = nested.get("proj_type")
    if kind not in (None, "linear", "mlp"):
        raise FormatError("config.json: text_config 'proj_type' must be null, linear or mlp")
    if positive(fields, "hidden_size") != size:
        kind = "linear"  # as the authors' code takes it, whatever is said
    instructions = fields.get("task_instructions") or {}
    if not isinstance(instructions, dict) or not all(
        isinstance(task, str) and isinstance(text, str) for task, text in instructions.items()
    ):
        raise FormatError("config.json: text_config 'task_instructions' must map tasks to texts")
    return JinaText(
        config=fields,
        pooling=POOLERS[name],
        embed_dim=size,
        projection=kind or "",
        has_projection_bias=boolean(nested, "proj_bias", default=False),
        adapter=_adapter(fields, nested.get("default_lora_task")),
        instructions=instructions,
    )


def _text_fields(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the model that the tower is made like, with those that the folder says."""
    name = nested.get("hf_model_name_or_path")
    if not isinstance(name, str) or name not in TEXT_MODELS:
        raise FormatError(
            f"config.json: text_config 'hf_model_name_or_path' must be one of {', '.join(TEXT_MODELS)}"
        )
    own = nested.get("hf_model_config_kwargs") or {}
    if not isinstance(own, dict):
        raise FormatError("config.json: text_config 'hf_model_config_kwargs' must be an object")
    fields = dict(TEXT_MODELS[name])
    for key, value in own.items():
        if key in NO_EFFECT or value is None:
            continue
        if key not in fields or (key in FIXED_TEXT and value != fields[key]):
            raise FormatError(
                f"config.json: text_config.hf_model_config_kwargs '{key[:40]}' is not supported"
            )
        fields[key] = value
    return fields


def _adapter(fields: Mapping[str, Any], task: object) -> JinaAdapter | None:
    """Return the adapter of the task that texts have where nothing is asked for."""
    if task is None:
        return None
    tasks = fields.get("lora_adaptations")
    if not isinstance(tasks, list) or task not in tasks:
        raise FormatError(
            "config.json: text_config 'default_lora_task' must be one of its 'lora_adaptations'"
        )
    rank = positive(fields, "lora_rank")
    scaling = positive_number(fields, "lora_alpha", 1.0) / rank
    return JinaAdapter(tasks.index(task), len(tasks), rank, scaling)


def read_jina_vision(config: Mapping[str, Any]) -> JinaVision:
    """Read the tower of pictures from a whole config.json.

    Raises:
        FormatError: A field is of the wrong type, or has a value that is not supported.
    """
    nested = _nested(config, "vision_config")
    sizes = {
        name: positive(nested, name, default)
        for name, default in VISION_DEFAULTS.items()
        if isinstance(default, int)
    }
    width, heads = sizes["width"], sizes["width"] // sizes["head_width"]
    if not heads or width % heads or width // heads % 4:
        raise FormatError(
            "config.json: vision_config 'head_width' must make of 'width' heads of multiples of 4"
        )
    kind = nested.get("proj_type")
    if kind not in (None, "linear") or (kind is None and width != sizes["embed_dim"]):
        raise FormatError(
            "config.json: vision_config 'proj_type' must be linear, or null where 'width' is 'embed_dim'"
        )
    side = sizes["image_size"] // sizes["patch_size"]
    if not side:
        raise FormatError("config.json: vision_config 'patch_size' is more than 'image_size'")
    trained = 0
    if boolean(nested, "rope_embeddings", default=False):
        trained = sizes["pt_hw_seq_len"]
        if not boolean(nested, "intp_freq", default=False) and trained != side:
            raise FormatError(
                f"config.json: vision_config 'pt_hw_seq_len' must be {side} without 'intp_freq'"
            )
    ratio = positive_number(nested, "mlp_ratio", VISION_DEFAULTS["mlp_ratio"])
    return JinaVision(
        embed_dim=sizes["embed_dim"],
        width=width,
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        layers=sizes["layers"],
        heads=heads,
        intermediate_size=positive({"mlp_ratio": int(width * min(ratio, 1e3))}, "mlp_ratio"),
        has_head=kind is not None,
        has_bias=boolean(nested, "qkv_bias", default=True),
        layer_scale=_is_scaled(nested.get("ls_init_value")),
        norms_behind=boolean(nested, "post_norm", default=False),
        is_gated=boolean(nested, "naive_swiglu", default=False),
        has_inner_norms=boolean(nested, "subln", default=False),
        trained_side=trained,
    )


def _is_scaled(value: object) -> bool:
    """Whether layers have scales of their own: where the number that they began with is above zero."""
    if value is None:
        return False
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FormatError("config.json: vision_config 'ls_init_value' must be a number or null")
    return value > 0


def _nested(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the fields of a tower; none where the file says nothing of it.

    Raises:
        FormatError: They are no object.
    """
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"config.json: '{name}' must be an object")
    return value
