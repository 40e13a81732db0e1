"""Models of the usual sizes with random weights: they run as fast as trained ones, and need no download."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

VOCABULARY: Final = 30_522
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Standard deviation of BERT's initial weights.
SCALE: Final = 0.02
# Files of a tokenizer that are taken over as they are; the others say how long a text may be.
TOKENIZER_FILES: Final = ("vocab.txt", "special_tokens_map.json")
# Kinds of distance to either side that DeBERTa's attention tells apart.
DISTANCES: Final = 256
Family = Literal["bert", "deberta-v2", "nomic_bert", "modernbert", "qwen3"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a model.

    Attributes:
        name: Name of the model in reports.
        hidden: H.
        layers: Number of layers.
        heads: Number of attention heads.
        inner: Width of the MLP.
        max_tokens: Most tokens of an input.
        kv_heads: Number of a decoder's key and value heads; 0 for encoders.
        head_width: Width of a decoder's head; 0 for encoders.
        family: Its `model_type`, as transformers calls it.
        pooling: How token states become a vector, as sentence-transformers calls it.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    inner: int
    max_tokens: int = 512
    kv_heads: int = 0
    head_width: int = 0
    family: Family = "bert"
    pooling: Literal["mean", "cls", "lasttoken"] = "mean"

    @property
    def weights_per_token(self) -> int:
        """Number of weights in the products of all layers; a token takes two operations for each, besides attention."""
        if self.kv_heads:
            wide, narrow = self.heads * self.head_width, self.kv_heads * self.head_width
            return self.layers * (
                self.hidden * (2 * wide + 2 * narrow) + 3 * self.hidden * self.inner
            )
        mlp = (2 if self.family in ("bert", "deberta-v2") else 3) * self.hidden * self.inner
        return self.layers * (4 * self.hidden**2 + mlp)

    def operations(self, lengths: NDArray[np.int64]) -> float:
        """Return the floating-point operations of a batch: those of the layers' products, and of attention's two.

        Attention is counted as if every token saw all others, which is too much for windows and causal layers.

        Args:
            lengths: Number of tokens of each input, (B,), int64.
        """
        wide = self.heads * (self.head_width or self.hidden // self.heads)
        attention = 4 * wide * float((lengths.astype(np.float64) ** 2).sum()) * self.layers
        return 2.0 * self.weights_per_token * float(lengths.sum()) + attention


MINILM: Final = Sizes("minilm-l6", 384, 6, 12, 1536)
BASE: Final = Sizes("bge-base", 768, 12, 12, 3072)
LARGE: Final = Sizes("bge-large", 1024, 24, 16, 4096)
NOMIC: Final = Sizes("nomic", 768, 12, 12, 3072, 2048, family="nomic_bert")
QWEN: Final = Sizes("qwen3-0.6b", 1024, 28, 16, 3072, 2048, 8, 128, "qwen3", "lasttoken")
MODERNBERT: Final = Sizes(
    "modernbert-base", 768, 22, 12, 1152, 8192, family="modernbert", pooling="cls"
)
DEBERTA: Final = Sizes("deberta-base", 768, 12, 12, 3072, family="deberta-v2")
# Those that gpu-check measures the speed of.
ALL: Final = (MINILM, BASE, LARGE, NOMIC, QWEN)
TINY: Final = Sizes("tiny", 32, 2, 2, 64, 64)


def write_model(sizes: Sizes, folder: Path, seed: int = 0, tokenizer: Path | None = None) -> Path:
    """Write a sentence-transformers folder of a model of these sizes, unless it exists; returns the folder.

    Args:
        sizes: Sizes of the model.
        folder: Where it goes; it appears whole or not at all.
        seed: Seed of the weights.
        tokenizer: Folder of a WordPiece model with a vocabulary of `VOCABULARY` whose tokenizer it gets; without one
            it has words w5 … as single tokens.
    """
    if (folder / "modules.json").is_file():
        return folder
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    random = np.random.default_rng(seed)

    def tensor(*shape: int) -> NDArray[np.float32]:
        weights = random.standard_normal(shape, np.float32)
        weights *= np.float32(SCALE)
        return weights

    config, tensors = MAKERS[sizes.family](sizes, tensor)
    save_file(tensors, unfinished / "model.safetensors")
    _write_json(unfinished / "config.json", config)
    if tokenizer:
        _copy_tokenizer(tokenizer, unfinished, sizes)
    else:
        _write_tokenizer(unfinished, sizes)
    _write_modules(unfinished, sizes)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder


MakeTensor = Callable[..., NDArray[np.float32]]
# A configuration, and tensors by name.
Model = tuple[Mapping[str, Any], dict[str, NDArray[np.float32]]]


def _shape(sizes: Sizes) -> dict[str, Any]:
    """The fields of a configuration that all families have under the same names."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.inner,
        "max_position_embeddings": sizes.max_tokens,
    }


def _bert(sizes: Sizes, tensor: MakeTensor) -> Model:
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        **_shape(sizes),
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": SCALE,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
    }
    size = sizes.hidden
    tensors = {
        "embeddings.word_embeddings.weight": tensor(VOCABULARY, size),
        "embeddings.position_embeddings.weight": tensor(sizes.max_tokens, size),
        "embeddings.token_type_embeddings.weight": tensor(2, size),
        **_norm("embeddings.LayerNorm", size),
    }
    for number in range(sizes.layers):
        tensors |= _post_norm_layer(number, ("query", "key", "value"), sizes, tensor)
    return config, tensors


def _post_norm_layer(
    number: int, projections: Sequence[str], sizes: Sizes, tensor: MakeTensor
) -> dict[str, NDArray[np.float32]]:
    """Make a layer of BERT's kind, whose norms stand behind the sums."""
    layer, size, inner = f"encoder.layer.{number}", sizes.hidden, sizes.inner
    tensors: dict[str, NDArray[np.float32]] = {}
    for part in projections:
        tensors |= _linear(f"{layer}.attention.self.{part}", size, size, tensor)
    tensors |= _linear(f"{layer}.attention.output.dense", size, size, tensor)
    tensors |= _norm(f"{layer}.attention.output.LayerNorm", size)
    tensors |= _linear(f"{layer}.intermediate.dense", inner, size, tensor)
    tensors |= _linear(f"{layer}.output.dense", size, inner, tensor)
    return tensors | _norm(f"{layer}.output.LayerNorm", size)


def _deberta(sizes: Sizes, tensor: MakeTensor) -> Model:
    """DeBERTa v3: no positions in the embeddings, but relative ones in every layer (arXiv:2111.09543)."""
    config = {
        "model_type": "deberta-v2",
        **_shape(sizes),
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "position_biased_input": False,
        "relative_attention": True,
        "position_buckets": DISTANCES,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
    }
    tensors = {
        "embeddings.word_embeddings.weight": tensor(VOCABULARY, sizes.hidden),
        **_norm("embeddings.LayerNorm", sizes.hidden),
        "encoder.rel_embeddings.weight": tensor(2 * DISTANCES, sizes.hidden),
        **_norm("encoder.LayerNorm", sizes.hidden),
    }
    parts = ("query_proj", "key_proj", "value_proj")
    for number in range(sizes.layers):
        tensors |= _post_norm_layer(number, parts, sizes, tensor)
    return config, tensors


def _rotary(sizes: Sizes, tensor: MakeTensor) -> Model:
    config = {
        "model_type": "nomic_bert",
        **_shape(sizes),
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "silu",
        "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
    }
    size, inner = sizes.hidden, sizes.inner
    tensors = {
        "embeddings.word_embeddings.weight": tensor(VOCABULARY, size),
        "embeddings.token_type_embeddings.weight": tensor(2, size),
        **_norm("embeddings.LayerNorm", size),
    }
    for number in range(sizes.layers):
        layer = f"layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{layer}.self_attn.{part}.weight"] = tensor(size, size)
        tensors |= _norm(f"{layer}.post_attention_layernorm", size)
        for part in ("gate_proj", "up_proj"):
            tensors[f"{layer}.mlp.{part}.weight"] = tensor(inner, size)
        tensors[f"{layer}.mlp.down_proj.weight"] = tensor(size, inner)
        tensors |= _norm(f"{layer}.post_mlp_layernorm", size)
    return config, tensors


def _modernbert(sizes: Sizes, tensor: MakeTensor) -> Model:
    config = {
        "model_type": "modernbert",
        "architectures": ["ModernBertModel"],
        **_shape(sizes),
        "norm_eps": 1e-5,
        "hidden_activation": "gelu",
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "pad_token_id": 0,
        "bos_token_id": 101,
        "eos_token_id": 102,
        "cls_token_id": 101,
        "sep_token_id": 102,
    }
    size, inner = sizes.hidden, sizes.inner
    ones = np.ones(size, np.float32)
    tensors = {
        "embeddings.tok_embeddings.weight": tensor(VOCABULARY, size),
        "embeddings.norm.weight": ones,
        "final_norm.weight": ones,
    }
    for number in range(sizes.layers):
        layer = f"layers.{number}"
        # The embeddings' norm is the first layer's.
        if number:
            tensors[f"{layer}.attn_norm.weight"] = ones
        tensors[f"{layer}.attn.Wqkv.weight"] = tensor(3 * size, size)
        tensors[f"{layer}.attn.Wo.weight"] = tensor(size, size)
        tensors[f"{layer}.mlp_norm.weight"] = ones
        tensors[f"{layer}.mlp.Wi.weight"] = tensor(2 * inner, size)
        tensors[f"{layer}.mlp.Wo.weight"] = tensor(size, inner)
    return config, tensors


def _decoder(sizes: Sizes, tensor: MakeTensor) -> Model:
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3Model"],
        **_shape(sizes),
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_width,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "rope_theta": 1_000_000.0,
    }
    size, wide, narrow = (
        sizes.hidden,
        sizes.heads * sizes.head_width,
        sizes.kv_heads * sizes.head_width,
    )
    tensors = {
        "embed_tokens.weight": tensor(VOCABULARY, size),
        "norm.weight": np.ones(size, np.float32),
    }
    for number in range(sizes.layers):
        layer = f"layers.{number}"
        attention = f"{layer}.self_attn"
        tensors[f"{attention}.q_proj.weight"] = tensor(wide, size)
        tensors[f"{attention}.k_proj.weight"] = tensor(narrow, size)
        tensors[f"{attention}.v_proj.weight"] = tensor(narrow, size)
        tensors[f"{attention}.o_proj.weight"] = tensor(size, wide)
        tensors[f"{attention}.q_norm.weight"] = np.ones(sizes.head_width, np.float32)
        tensors[f"{attention}.k_norm.weight"] = np.ones(sizes.head_width, np.float32)
        tensors[f"{layer}.input_layernorm.weight"] = np.ones(size, np.float32)
        tensors[f"{layer}.post_attention_layernorm.weight"] = np.ones(size, np.float32)
        for part in ("gate_proj", "up_proj"):
            tensors[f"{layer}.mlp.{part}.weight"] = tensor(sizes.inner, size)
        tensors[f"{layer}.mlp.down_proj.weight"] = tensor(size, sizes.inner)
    return config, tensors


MAKERS: Final[Mapping[Family, Callable[[Sizes, MakeTensor], Model]]] = {
    "bert": _bert,
    "deberta-v2": _deberta,
    "nomic_bert": _rotary,
    "modernbert": _modernbert,
    "qwen3": _decoder,
}


def _norm(name: str, size: int) -> dict[str, NDArray[np.float32]]:
    return {f"{name}.weight": np.ones(size, np.float32), f"{name}.bias": np.zeros(size, np.float32)}


def _linear(
    name: str, rows: int, columns: int, tensor: MakeTensor
) -> dict[str, NDArray[np.float32]]:
    return {f"{name}.weight": tensor(rows, columns), f"{name}.bias": tensor(rows)}


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def _copy_tokenizer(source: Path, folder: Path, sizes: Sizes) -> None:
    """Copy a tokenizer, with the model's own length in place of its own."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    _write_json(folder / "tokenizer.json", {**tokenizer, "truncation": None, "padding": None})
    config = json.loads((source / "tokenizer_config.json").read_text("utf-8"))
    _write_json(folder / "tokenizer_config.json", {**config, "model_max_length": sizes.max_tokens})


def _write_tokenizer(folder: Path, sizes: Sizes) -> None:
    """Write a tokenizer of words w5 … as single tokens, so that lengths are known."""
    words = {
        **{name: n for n, name in enumerate(SPECIAL)},
        **{f"w{n}": n for n in range(len(SPECIAL), VOCABULARY)},
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))  # noqa: S106 - a token of a vocabulary
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": sizes.max_tokens,
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    _write_json(folder / "tokenizer_config.json", config)


def _write_modules(folder: Path, sizes: Sizes) -> None:
    """Write sentence-transformers' files: the encoder, pooling, unit vectors."""
    _write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": sizes.max_tokens, "do_lower_case": False},
    )
    modes = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    pooling = {f"pooling_mode_{name}": sizes.pooling == mode for mode, name in modes.items()}
    _write_json(
        folder / "1_Pooling/config.json", {"word_embedding_dimension": sizes.hidden, **pooling}
    )
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{name}",
        }
        for number, (name, path) in enumerate(paths.items())
    ]
    _write_json(folder / "modules.json", modules)


def text_of(length: int, random: np.random.Generator) -> str:
    """Return a text of so many tokens, the two special ones at its ends included."""
    numbers = random.integers(len(SPECIAL), VOCABULARY, max(1, length - 2))
    return " ".join(f"w{n}" for n in numbers)
