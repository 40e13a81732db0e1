"""The parts of a tokenizer.json as JSON: reading them without the vocabulary, and comparing and making them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from nestvec.system.json_files import load_json

NAMES: Final = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor")
SPACE: Final = "▁"
Part = Mapping[str, Any]
TokenAndId = tuple[str, int]


@dataclass(frozen=True, slots=True)
class TokenizerParts:
    """What a tokenizer.json says, but for its model.

    Attributes:
        path: The file.
        added_tokens: Tokens that are found before anything else.
        normalizer: What is done to a text first; None for nothing.
        pre_tokenizer: How it is cut; None for not at all.
        post_processor: What stands around it; None for nothing.
    """

    path: Path
    added_tokens: tuple[Part, ...]
    normalizer: Part | None
    pre_tokenizer: Part | None
    post_processor: Part | None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the file; None where it is no tokenizer.json."""
        try:
            text = path.read_text("utf-8")
            content = _leading_fields(text) or load_json(text)
        except (OSError, ValueError):
            return None
        if not isinstance(content, dict):
            return None
        added, *others = (content.get(name) for name in NAMES)
        added = added or []
        if not isinstance(added, list) or not all(
            isinstance(token, dict)
            and isinstance(token.get("content"), str)
            and isinstance(token.get("id"), int)
            for token in added
        ):
            return None
        if not all(part is None or isinstance(part, dict) for part in others):
            return None
        return cls(path, tuple(added), others[0], others[1], others[2])

    def vocabulary(self) -> dict[str, int]:
        """Read the model's own tokens and their ids, which large files take a second for."""
        try:
            model = load_json(self.path.read_text("utf-8")).get("model")
            pieces = model.get("vocab")
            if isinstance(pieces, list):
                return {piece[0]: number for number, piece in enumerate(pieces)}
            return {piece: number for piece, number in pieces.items() if isinstance(number, int)}
        except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError):
            return {}  # opening the tokenizer says what is wrong with it


def _leading_fields(text: str) -> dict[str, Any] | None:
    """The fields before `model`, which the library writes last; None where the file is written otherwise.

    Raises:
        ValueError: The text is not JSON.
    """
    decoder = json.JSONDecoder()
    fields: dict[str, Any] = {}
    position = _skip(text, 0, "{")
    while True:
        try:
            name, position = decoder.raw_decode(text, position)
            position = _skip(text, position, ":")
            if name == "model":
                return fields if all(part in fields for part in NAMES) else None
            fields[name], position = decoder.raw_decode(text, position)
            position = _skip(text, position, ",")
        except RecursionError:
            raise ValueError("nested too deeply") from None
        except TypeError:  # a name that is no text
            return None


def _skip(text: str, position: int, mark: str) -> int:
    """Position of what follows a mark and the blanks around it."""
    blanks = " \t\r\n"
    while text[position : position + 1] in blanks and position < len(text):
        position += 1
    if text[position : position + 1] != mark:
        raise ValueError(f"expected {mark!r}")
    position += 1
    while text[position : position + 1] in blanks and position < len(text):
        position += 1
    return position


def bert_normalizer(
    normalizer: Part | None,
    *,
    lowercase: bool,
    strip_accents: bool | None,
    handle_chinese_chars: bool,
    checks_chinese: bool,
    is_new: bool,
) -> Part | None:
    """Return a BERT class's normalizer; the one given where it does the same.

    Args:
        normalizer: The file's.
        lowercase: Whether letters become small.
        strip_accents: Whether accents are taken off; None: where letters become small.
        handle_chinese_chars: Whether Chinese characters stand for themselves.
        checks_chinese: Whether the class sets that, too.
        is_new: Whether other kinds of normalizers are replaced.
    """
    is_bert = normalizer is not None and normalizer.get("type") == "BertNormalizer"
    if not is_bert and not is_new:
        return normalizer
    old: Part = normalizer if is_bert and normalizer is not None else {}
    made = {
        "type": "BertNormalizer",
        "clean_text": True if is_new else old.get("clean_text", True),
        "handle_chinese_chars": handle_chinese_chars
        if checks_chinese
        else old.get("handle_chinese_chars", True),
        "strip_accents": strip_accents,
        "lowercase": lowercase,
    }
    return normalizer if is_bert and _effect(made) == _effect(old) else made


def _effect(normalizer: Part) -> tuple[bool, ...]:
    """What a BertNormalizer does: accents that nothing is said of go with capitals."""
    lowercase = bool(normalizer.get("lowercase", True))
    strips = normalizer.get("strip_accents")
    return (
        bool(normalizer.get("clean_text", True)),
        bool(normalizer.get("handle_chinese_chars", True)),
        lowercase if strips is None else bool(strips),
        lowercase,
    )


def lowercased(normalizer: Part | None) -> Part | None:
    """Return a normalizer that makes letters small first, as sentence-transformers puts it there."""
    parts: Sequence[Part] = [] if normalizer is None else [normalizer]
    if normalizer is not None and isinstance(normalizer.get("normalizers"), list):
        parts = normalizer["normalizers"]
    lower = {"type": "Lowercase"}
    if lower in parts:
        return normalizer
    return {"type": "Sequence", "normalizers": [lower, *parts]}


def converted_parts(
    parts: TokenizerParts, *, adds_space: bool, is_legacy: bool = False
) -> tuple[Part | None, Part | None] | None:
    """Return normalizer and pre-tokenizer of a Llama tokenizer that is converted from tokenizer.model.

    Args:
        parts: The tokenizer.json that was made in another such conversion.
        adds_space: Whether a blank is put before a text.
        is_legacy: Whether blanks are marked in the normalizer (and one put behind each special token).

    Returns:
        Both; None where the tokenizer.json is of another kind.
    """
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    legacy = [{"type": "Sequence", "normalizers": [*each, replace]} for each in ([], [prepend])]
    splitter = parts.pre_tokenizer
    is_metaspace = splitter is not None and splitter.get("type") == "Metaspace"
    if not (parts.normalizer is None and is_metaspace) and not (
        parts.normalizer in legacy and splitter is None
    ):
        return None
    if is_legacy:
        return legacy[adds_space], None
    scheme = "first" if adds_space else "never"
    if splitter is not None and splitter.get("prepend_scheme") == scheme:
        return None, splitter
    return None, {
        "type": "Metaspace",
        "replacement": SPACE,
        "prepend_scheme": scheme,
        "split": False,
    }


def template(bos: TokenAndId | None, eos: TokenAndId | None) -> Part:
    """Return a post-processor that puts tokens before and behind each text.

    Args:
        bos: The one before; None for none.
        eos: The one behind; None for none.
    """

    def around(sequence: str, type_id: int) -> list[Part]:
        def special(token: TokenAndId | None) -> list[Part]:
            return [{"SpecialToken": {"id": token[0], "type_id": type_id}}] if token else []

        return [
            *special(bos),
            {"Sequence": {"id": sequence, "type_id": type_id}},
            *special(eos),
        ]

    single = around("A", 0)
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *around("B", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [token_id], "tokens": [token]}
            for token, token_id in filter(None, (bos, eos))
        },
    }


def template_ids(processor: Part | None) -> object:
    """Ids that a post-processor puts around a text and a pair, "A" and "B" in their places; None if unknown."""
    kind = None if processor is None else processor.get("type")
    if processor is None or kind == "ByteLevel":
        return ("A",), ("A", "B")
    try:
        if kind == "Sequence":
            others = [each for each in processor["processors"] if each.get("type") != "ByteLevel"]
            return template_ids(others[0] if others else None) if len(others) < 2 else None  # noqa: PLR2004
        if kind in ("BertProcessing", "RobertaProcessing"):
            cls, sep = processor["cls"][1], processor["sep"][1]
            between = (sep,) if kind == "BertProcessing" else (sep, sep)
            return (cls, "A", sep), (cls, "A", *between, "B", sep)
        if kind == "TemplateProcessing":
            return tuple(_piece_ids(processor, processor[form]) for form in ("single", "pair"))
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError):
        return None
    return None


def _piece_ids(processor: Part, pieces: Sequence[Part]) -> tuple[object, ...]:
    ids: list[object] = []
    for piece in pieces:
        if "Sequence" in piece:
            ids.append(piece["Sequence"]["id"])
        else:
            ids += processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
    return tuple(ids)
