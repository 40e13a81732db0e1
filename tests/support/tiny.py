"""Small random models in Hugging Face layout, made from a seed: nothing of them is committed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "one",
    "two",
    "three",
    "four",
    "red",
    "green",
    "blue",
    "the",
    "a",
    "of",
    "and",
    "query",
    ":",
    "passage",
]
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
TINY_SEED = 7


def vocabulary() -> list[str]:
    """Return 128 pieces: specials, words, letters and continuations."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL, *dict.fromkeys([*WORDS, *letters]), *(f"##{c}" for c in letters)]
    pieces += [f"[unused{n}]" for n in range(CONFIG["vocab_size"] - len(pieces))]
    return pieces


def bert_weights(config: dict[str, Any], seed: int = TINY_SEED) -> dict[str, NDArray[np.float32]]:
    """Return random tensors under Hugging Face's names; norms near one, so that errors show."""
    random = np.random.Generator(np.random.PCG64(seed))
    size, intermediate_size = config["hidden_size"], config["intermediate_size"]

    def tensor(*shape: int, around: float = 0.0) -> NDArray[np.float32]:
        return (around + 0.2 * random.standard_normal(shape)).astype(np.float32)

    def norm(name: str) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": tensor(size, around=1.0), f"{name}.bias": tensor(size)}

    def dense(name: str, rows: int, columns: int) -> dict[str, NDArray[np.float32]]:
        return {f"{name}.weight": tensor(rows, columns), f"{name}.bias": tensor(rows)}

    weights = {
        "embeddings.word_embeddings.weight": tensor(config["vocab_size"], size),
        "embeddings.position_embeddings.weight": tensor(config["max_position_embeddings"], size),
        "embeddings.token_type_embeddings.weight": tensor(config["type_vocab_size"], size),
        **norm("embeddings.LayerNorm"),
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for part in ("query", "key", "value"):
            weights |= dense(f"{layer}.attention.self.{part}", size, size)
        weights |= dense(f"{layer}.attention.output.dense", size, size)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= dense(f"{layer}.intermediate.dense", intermediate_size, size)
        weights |= dense(f"{layer}.output.dense", size, intermediate_size)
        weights |= norm(f"{layer}.output.LayerNorm")
    return weights


def write_tokenizer(path: Path) -> None:
    """Write a WordPiece tokenizer over the tiny vocabulary, with BERT's template, padding and truncation."""
    pieces = {piece: number for number, piece in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocab=pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(path))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def write_tiny_bert(
    folder: Path, *, config: dict[str, Any] | None = None, seed: int = TINY_SEED
) -> Path:
    """Write a sentence-transformers folder of a tiny BERT with mean pooling and a query prompt."""
    whole_config = {**CONFIG, **(config or {})}
    write_json(folder / "config.json", whole_config)
    write_tokenizer(folder / "tokenizer.json")
    save_file(bert_weights(whole_config, seed), folder / "model.safetensors")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 24})
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "query : "}})
    return folder
