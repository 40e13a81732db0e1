"""What towers of texts ask of a tokenizer: padding that SigLIP reads, and where a text of CLIP ends.

Source: SigLIP (arXiv:2303.15343), SigLIP 2 (arXiv:2502.14786); `padding="max_length"` in transformers' documentation of
their processors.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.engine.text.truncation import TextPadding
from nestvec.errors import FormatError
from nestvec.export.two_towers.config import NAFLEX_TYPE, read_text_sizes
from nestvec.model_store.sources.file_names import SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE
from nestvec.system.json_files import read_json

SIDES: Final = ("right", "left")
# The token and the side of `SiglipTokenizer` and of Gemma's classes, where no file says them.
PADDED_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "siglip": ("</s>", "right"),
    NAFLEX_TYPE: ("<pad>", "left"),
}


def with_tower(
    changes: TokenizerChanges, folder: Path, config: Mapping[str, Any]
) -> TokenizerChanges:
    """Return changes of a tokenizer with those of its model's tower of texts, where it has one.

    Args:
        changes: What the files beside tokenizer.json make other.
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: The files say too little of padding that is read; names file and field.
    """
    return replace(
        changes,
        # CLIP pools the first end token of a text, and its tokens see only what stands before them.
        ends_at_end_token=config.get("model_type") == "clip",
        padding=read_text_padding(folder, config),
    )


def read_text_padding(folder: Path, config: Mapping[str, Any]) -> TextPadding | None:
    """Read how a model's texts are padded; None where they are not.

    Args:
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: The files name no token for it, or one that the vocabulary lacks; names file and field.
    """
    if (model_type := str(config.get("model_type"))) not in PADDED_TYPES:
        return None
    default_token, default_side = PADDED_TYPES[model_type]
    path = folder / TOKENIZER_CONFIG_FILE
    fields = read_json(path) if path.is_file() else {}
    token = fields.get("pad_token")
    if token is None and (folder / SPECIAL_TOKENS_FILE).is_file():
        token = read_json(folder / SPECIAL_TOKENS_FILE).get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    token = default_token if token is None else token
    token_id = _id_of(folder / "tokenizer.json", token)
    if token_id is None:
        raise FormatError(
            f"{path}: pad_token: texts of this model are padded to one length, and the vocabulary has no {token!r}"
        )
    side = fields.get("padding_side", default_side)
    if side not in SIDES:
        raise FormatError(f"{path}: padding_side must be right or left")
    return TextPadding(read_text_sizes(config).max_positions, token_id, is_left=side == "left")


def _id_of(path: Path, token: object) -> int | None:
    """Return a token's id by a tokenizer.json; None where it has none."""
    from tokenizers import Tokenizer

    if not isinstance(token, str):
        return None
    try:
        library: Any = Tokenizer.from_str(json.dumps(read_json(path)))
    except Exception as error:  # the library raises its own base class
        raise FormatError(f"{path}: cannot be read as a tokenizer") from error
    found: int | None = library.token_to_id(token)
    return found
