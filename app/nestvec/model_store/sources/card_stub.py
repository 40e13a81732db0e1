"""A card for a model that was made here, for its user to complete."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nestvec.errors import ArtefactError
from nestvec.model_store.sources.card import Card
from nestvec.system.durable_files import atomic_write


def write_card_stub(path: Path, card: Card) -> None:
    """Write a card as `read_card` reads it; vectors that authors publish and hashes of files are left out.

    Args:
        path: The card's file; its folder must exist.
        card: What is known.

    Raises:
        ArtefactError: The file exists or cannot be written.
    """
    if path.exists():
        raise ArtefactError(f"{path}: exists already")
    fields = {
        "name": card.name,
        "aliases": list(card.aliases),
        "license": card.license,
        "languages": list(card.languages),
        "description": card.description,
        "trained_dimensions": list(card.trained_dimensions),
        "trained_layers": list(card.trained_layers),
    }
    tables = {
        "source": {"kind": card.source.kind, "name": card.source.name},
        "config": card.config,
        "overrides": card.overrides,
        "facts": card.facts,
        "looked_up": card.looked_up,
    }
    lines = ["# Written by nestvec. Complete what you know more of, such as license and languages."]
    lines += [f"{key} = {_toml(value)}" for key, value in fields.items() if value]
    if not card.languages and card.language_count:
        lines.append(f"language_count = {card.language_count}")
    for name, table in tables.items():
        if table:
            lines += ["", f"[{name}]", *_rows(table)]
    try:
        with atomic_write(path) as file:
            file.write(("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be written ({error.strerror})") from error


def _rows(table: Mapping[str, Any]) -> list[str]:
    return [f"{_toml(key)} = {_toml(value)}" for key, value in table.items() if value is not None]


def _toml(value: object) -> str:
    """Write a value as TOML does, whose texts are JSON's but for pairs of surrogates."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_rows(value))} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
