"""What says what a model is: its card, its folder, a Router's routes, config.json, a chat template."""

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from nestvec.assembly.sources import CHECKOUT_CARDS
from nestvec.errors import NestvecError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.quantization import read_quantization
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.remote_code import with_code
from nestvec.model_store.folder.router import read_routes
from nestvec.model_store.folder.static_folders import find_static
from nestvec.model_store.heads.chat_templates import (
    folder_chat_template,
    has_pair_roles,
    read_pair_template,
)
from nestvec.model_store.sources.card import read_card
from nestvec.system.json_files import read_json

from tests.end_to_end.fuzz.mutate import as_json, half_and_half, mutated_bytes, mutated_json
from tests.end_to_end.fuzz.parsers.parser_target import ParserTarget, nothing, pristine_bert
from tests.model_store.heads.yes_no import CHAT_TEMPLATES

TESTS = Path(__file__).parents[3]
DERIVED = (
    *("config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer_config.json"),
)
ROUTER = {
    "types": {"q": "sentence_transformers.models.StaticEmbedding", "": "MLMTransformer", "1": "x"},
    "structure": {"query": ["q"], "document": ["", "1"]},
    "parameters": {
        "default_route": "document",
        "allow_empty_key": True,
        "route_mappings": {"('query', 'text')": "query", "(None, None)": "document"},
    },
}
# What config.json says of a family, of its authors' code and of quantised weights.
FAMILIES = TESTS / "export/families"
FAMILY_FIELDS = {
    "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model", "AutoConfig": "configuration.NewConfig"},
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "strategy": "block"}}},
    },
    "is_causal": True,
    "use_sliding_window": True,
}


def _cards(folder: Path) -> list[bytes]:
    del folder
    return [path.read_bytes() for path in sorted(CHECKOUT_CARDS.glob("*.toml"))]


def _write_card(folder: Path, cards: list[bytes], chooser: random.Random) -> None:
    content = chooser.choice(cards)
    if chooser.random() < 0.5:
        lines = content.splitlines()
        index = chooser.randrange(len(lines))
        name = lines[index].split(b"=")[0]
        values = [
            b"1",
            b'"x"',
            b"[1, 'a']",
            b"{}",
            b"-1",
            b"1e999",
            b"true",
            b"[[]]",
            b"{ x = [1] }",
        ]
        lines[index] = name + b"= " + chooser.choice(values)
        content = b"\n".join(lines)
    else:
        content = mutated_bytes(content, chooser)
    (folder / "card.toml").write_bytes(content)


def _write_folder(folder: Path, pristine: Path, chooser: random.Random) -> None:
    for name in DERIVED:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if (pristine / name).exists():
            shutil.copyfile(pristine / name, path)
        else:
            path.unlink(missing_ok=True)
    for name in ("tokenizer.json", "model.safetensors"):
        if not (folder / name).exists():
            shutil.copyfile(pristine / name, folder / name)
    name = chooser.choice(DERIVED)
    content = (pristine / name).read_bytes() if (pristine / name).exists() else b'{"prompts": {}}'
    (folder / name).write_bytes(half_and_half(content, chooser))


def _read_folder(folder: Path) -> object:
    return read_model_folder(folder, {}), find_static(folder)


def _write_router(folder: Path, _: None, chooser: random.Random) -> None:
    (folder / "router_config.json").write_bytes(half_and_half(json.dumps(ROUTER).encode(), chooser))


def _families(folder: Path) -> list[dict[str, Any]]:
    del folder
    return [json.loads(path.read_text())["config"] for path in sorted(FAMILIES.glob("*.json"))]


def _write_family(folder: Path, configs: list[dict[str, Any]], chooser: random.Random) -> None:
    config = {**chooser.choice(configs), **FAMILY_FIELDS}
    (folder / "config.json").write_bytes(as_json(mutated_json(config, chooser)))


def _read_family(folder: Path) -> object:
    config = read_json(folder / "config.json")
    with suppress(NestvecError):
        read_quantization(config)
    family = architecture_of(config)
    with suppress(NestvecError):
        with_code(config, family, {})
    return ARCHITECTURES[family].dimensions(config) if family in ARCHITECTURES else None


def _write_chat_template(folder: Path, _: None, chooser: random.Random) -> None:
    template = chooser.choice(list(CHAT_TEMPLATES.values())).encode()
    (folder / "chat_template.jinja").write_bytes(mutated_bytes(template, chooser))


def _read_chat_template(folder: Path) -> object:
    template = folder_chat_template(folder)
    assert template is not None
    has_pair_roles(template)
    return read_pair_template(template, "folder").around("a", None)


TARGETS = {
    "card": ParserTarget(_cards, _write_card, lambda folder: read_card(folder / "card.toml")),
    "folder": ParserTarget(pristine_bert, _write_folder, _read_folder),
    "router": ParserTarget(nothing, _write_router, read_routes),
    "families": ParserTarget(_families, _write_family, _read_family),
    "chat template": ParserTarget(nothing, _write_chat_template, _read_chat_template),
}
