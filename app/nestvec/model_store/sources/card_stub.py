"""A card for a model that was made here: what is known of it, for its user to complete."""

import json
from pathlib import Path

from nestvec.errors import ArtefactError
from nestvec.model_store.sources.card import Card
from nestvec.system.durable_files import atomic_write


def write_card_stub(path: Path, card: Card) -> None:
    """Write the card of a folder.

    Args:
        path: The card's file; its folder must exist.
        card: Its name, aliases, source, description, facts, and where those were looked up; nothing else is written.

    Raises:
        ArtefactError: The file exists or cannot be written.
    """
    if path.exists():
        raise ArtefactError(f"{path}: exists already")
    lines = [
        "# What is known of this model; complete it where you know more: license, languages.",
        f"name = {_toml(card.name)}",
        f"aliases = [{', '.join(map(_toml, card.aliases))}]",
        f"description = {_toml(card.description)}",
        "",
        "[source]",
        f"kind = {_toml(card.source.kind)}",
        f"name = {_toml(card.source.name)}",
        "",
        "[facts]",
        *(f"{key} = {_toml(value)}" for key, value in card.facts.items()),
        "",
        "[looked_up]",
        *(f"{_toml(field)} = {_toml(where)}" for field, where in card.looked_up.items()),
        "",
    ]
    try:
        with atomic_write(path) as file:
            file.write("\n".join(lines).encode())
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be written ({error.strerror})") from error


def _toml(value: int | str) -> str:
    """Write a value as TOML does, whose texts are JSON's but for pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
