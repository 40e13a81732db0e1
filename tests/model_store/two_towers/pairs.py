"""Tiny models of texts that models of pictures stand beside."""

from pathlib import Path
from typing import Final

from tests.export.families.harness import load
from tests.support.tiny import write_json, write_tokenizer

TEXTS: Final = ("", "alpha", "red and green", "query : two blue three four")


def write_texts(folder: Path) -> Path:
    """Write a tiny nomic-embed-text: NomicBERT, mean pooling, and the prompts of its card."""
    load("nomic_bert").write(folder)
    write_tokenizer(folder / "tokenizer.json")
    write_json(folder / "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    prompts = {"query": "query : ", "document": "passage : "}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    return folder
