"""What a name that stands for no model may have meant."""

import difflib
from pathlib import Path
from typing import Final

from nestvec.errors import FormatError
from nestvec.model_store.sources.card import card_files, read_card

MAX_SUGGESTIONS: Final = 3  # cards that an error names
MIN_SIMILARITY: Final = 0.6  # of a suggested name, as difflib counts
HUB_ID_PARTS: Final = 2


def unknown_model(model: str, card_dirs: tuple[Path, ...]) -> str:
    """Say why a name stands for no model, and what it may have meant."""
    path = Path(model).expanduser()
    if path.exists():
        return f"'{model}' is a file: a model is a folder, a card, or a Hub id of the form org/name"
    if model.startswith((".", "~")) or path.is_absolute() or len(path.parts) > HUB_ID_PARTS:
        return f"no such folder: {model}" + _nearest_folder(path)
    # The name of each card in lower case, by all that it may be called.
    names = {name.casefold(): p.stem for p in card_files(card_dirs) for name in _names(p)}
    near = difflib.get_close_matches(model.casefold(), names, MAX_SUGGESTIONS, MIN_SIMILARITY)
    meant = ", ".join(dict.fromkeys(names[name] for name in near))
    return (
        f"there is no model '{model}': no card and no folder has this name, and a Hub id is of the form org/name; "
        + (f"did you mean {meant}?" if meant else "`nestvec model list` lists the cards")
    )


def _names(card_file: Path) -> tuple[str, ...]:
    """What a card may be called; of one that cannot be read its file's name."""
    try:
        card = read_card(card_file)
    except FormatError:
        return (card_file.stem,)
    return (card_file.stem, card.name, *card.aliases)


def _nearest_folder(path: Path) -> str:
    """Say how far a path exists, and which of the names there is close."""
    known = next((parent for parent in path.parents if parent.is_dir()), None)
    if known is None:
        return ""
    missing = path.relative_to(known).parts[0]
    try:
        folders = sorted(entry.name for entry in known.iterdir() if entry.is_dir())
    except OSError:
        return ""
    near = difflib.get_close_matches(missing, folders, 1, MIN_SIMILARITY)
    return f"; did you mean {known / near[0]}?" if near else ""
