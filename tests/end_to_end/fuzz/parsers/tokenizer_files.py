"""Tokenizers, and what stands beside them."""

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation
from nestvec.errors import InputError
from nestvec.model_store.folder.tokenizer_files import read_tokenizer_changes
from nestvec.model_store.pruning.tokens import TokenizerModel
from nestvec.system.json_files import read_json

from tests.end_to_end.fuzz.mutate import half_and_half
from tests.end_to_end.fuzz.parsers.parser_target import ParserTarget, pristine_bert
from tests.support.tiny import CONFIG

TEXTS = ["", "alpha beta", "é漢字 🙂\u0301", "[MASK] ##a", "a" * 500]
BESIDE: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        "tokenizer_class": "LlamaTokenizer",
        "add_eos_token": True,
        "eos_token": "[SEP]",
        "bos_token": {"content": "[CLS]", "lstrip": True},
        "do_lower_case": False,
        "added_tokens_decoder": {"40": {"content": "[unused0]", "special": False}},
    },
    "special_tokens_map.json": {"sep_token": {"content": "[SEP]"}, "mask_token": "[MASK]"},
    "added_tokens.json": {"[unused1]": 41},
    "sentence_bert_config.json": {"do_lower_case": True},
}


def _write_tokenizer(folder: Path, pristine: Path, chooser: random.Random) -> None:
    content = (pristine / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(half_and_half(content, chooser))


def _read_tokenizer(folder: Path) -> object:
    tokenizer = Tokenizer(
        folder / "tokenizer.json", max_tokens=24, vocabulary_size=CONFIG["vocab_size"]
    )
    encoded = []
    for text in TEXTS:
        with suppress(InputError):
            encoded.append(tokenizer.encode_texts([text], TokenizeOptions(Truncation.END)))
    model = TokenizerModel.read(read_json(folder / "tokenizer.json"))
    kept = sorted(model.ids[token] for token in model.needed(["alpha"], frozenset()))
    return encoded, model.pruned({old: new for new, old in enumerate(kept)})


def _write_beside(folder: Path, pristine: Path, chooser: random.Random) -> None:
    shutil.copyfile(pristine / "tokenizer.json", folder / "tokenizer.json")
    if chooser.random() < 0.3:
        _write_tokenizer(folder, pristine, chooser)
    mutated = chooser.choice(list(BESIDE))
    classes = ("BertTokenizer", "LlamaTokenizer", "MPNetTokenizer", None)
    for name, fields in BESIDE.items():
        if name == "tokenizer_config.json":
            fields = {**fields, "tokenizer_class": chooser.choice(classes)}  # noqa: PLW2901
            if chooser.random() < 0.5:
                fields.pop("added_tokens_decoder")
        content = json.dumps(fields).encode()
        (folder / name).write_bytes(half_and_half(content, chooser) if name == mutated else content)


def _read_beside(folder: Path) -> object:
    changes = read_tokenizer_changes(folder, CONFIG, CONFIG["vocab_size"])
    path = folder / "tokenizer.json"
    return Tokenizer(path, max_tokens=24, vocabulary_size=CONFIG["vocab_size"], changes=changes)


TARGETS = {
    "tokenizer": ParserTarget(pristine_bert, _write_tokenizer, _read_tokenizer),
    "beside tokenizer": ParserTarget(pristine_bert, _write_beside, _read_beside),
}
