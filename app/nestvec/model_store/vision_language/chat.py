"""The messages in which Qwen3-VL-Embedding reads a text: what stands before it, and, by the tokenizer, behind it.

Source: Qwen3-VL-Embedding (arXiv:2601.04720), whose repository gives texts and pictures as a user's message behind a
system's with the instruction, and pools what the tokenizer puts at the end.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.preparation.chat_frame import ChatFrame
from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.engine.text.tokenizer_library import open_library
from nestvec.errors import FormatError
from nestvec.export.vision_language.config import VISION_LANGUAGE_TYPES
from nestvec.model_store.heads.chat_templates import folder_chat_template
from nestvec.model_store.sources.tokenizer_parts import TokenizerParts

TOKENIZER_FILE: Final = "tokenizer.json"
INSTRUCTION: Final = "Represent the user's input."
BEHIND: Final = "<|im_end|>\n<|im_start|>assistant\n"
MESSAGE_TOKENS: Final = ("<|im_start|>", "<|im_end|>")
PICTURE: Final = "<|vision_start|><|image_pad|><|vision_end|>"
PICTURE_TOKENS: Final = ("<|vision_start|>", "<|vision_end|>")
BYTE_LEVEL: Final = "ByteLevel"


def read_chat(folder: Path, config: Mapping[str, Any], instruction: str) -> ChatFrame | None:
    """Read how a model reads texts in messages; None for one that does not.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        instruction: The folder's default prompt; "" for none.

    Raises:
        FormatError: Its chat template is another one than Qwen3-VL's.
    """
    if str(config.get("model_type")) not in VISION_LANGUAGE_TYPES:
        return None
    template = folder_chat_template(folder)
    if template is not None and not all(part in template for part in (*MESSAGE_TOKENS, PICTURE)):
        raise FormatError(
            f"{folder}: chat_template is not Qwen3-VL's, whose messages are written here"
        )
    return ChatFrame(instruction or INSTRUCTION)


def with_chat(
    changes: TokenizerChanges, folder: Path, config: Mapping[str, Any]
) -> TokenizerChanges:
    """Return changes of a tokenizer that put the end of the messages behind each text, before its own special tokens.

    Args:
        changes: What the files beside tokenizer.json make other.
        folder: The encoder's folder.
        config: Its config.json.

    Raises:
        FormatError: The vocabulary lacks a token of messages, or the tokenizer cannot be read.
    """
    if str(config.get("model_type")) not in VISION_LANGUAGE_TYPES:
        return changes
    path = folder / TOKENIZER_FILE
    library = open_library(path, adds_special_tokens=True, changes=changes)
    _ids_of(library, path, MESSAGE_TOKENS)
    if changes.splits_special_tokens:
        raise FormatError(f"{folder}: split_special_tokens: messages are written by special tokens")
    encoding = library.encode("a")
    mask = list(encoding.special_tokens_mask)
    before, behind = mask.index(0), len(mask) - 1 - mask[::-1].index(0)
    end = library.encode(BEHIND, add_special_tokens=False).ids
    around = encoding.ids[:before], [*end, *encoding.ids[behind + 1 :]]
    return replace(changes, post_processor=_post_processor(path, changes, library, around))


def picture_token_ids(folder: Path) -> tuple[int, int]:
    """Return the ids of the tokens before and behind those of a picture.

    Raises:
        FormatError: The vocabulary lacks them, or the tokenizer cannot be read.
    """
    path = folder / TOKENIZER_FILE
    start, end = _ids_of(open_library(path, adds_special_tokens=True), path, PICTURE_TOKENS)
    return start, end


def _ids_of(library: LibraryTokenizer, path: Path, tokens: tuple[str, ...]) -> list[int]:
    ids = []
    for token in tokens:
        number = library.token_to_id(token)
        if number is None or library.encode(token, add_special_tokens=False).ids != [number]:
            raise FormatError(
                f"{path}: {token} is no token of its own, and messages are written by it"
            )
        ids.append(number)
    return ids


def _post_processor(
    path: Path,
    changes: TokenizerChanges,
    library: LibraryTokenizer,
    around: tuple[list[int], list[int]],
) -> Mapping[str, Any]:
    """Return a post-processor, as tokenizer.json writes one, that puts ids around a text."""
    parts = TokenizerParts.read(path)
    own = changes.post_processor or (None if parts is None else parts.post_processor) or {}
    steps = [step for step in own.get("processors", [own]) if step.get("type") == BYTE_LEVEL]
    special, single = {}, []
    for name, ids in zip(("before", "behind"), around, strict=True):
        if name == "behind":
            single.append({"Sequence": {"id": "A", "type_id": 0}})
        if ids:
            tokens = [library.id_to_token(number) for number in ids]
            special[name] = {"id": name, "ids": list(ids), "tokens": tokens}
            single.append({"SpecialToken": {"id": name, "type_id": 0}})
    pair = [{"Sequence": {"id": side, "type_id": 0}} for side in "AB"]
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": special,
    }
    return {"type": "Sequence", "processors": [*steps, template]}
