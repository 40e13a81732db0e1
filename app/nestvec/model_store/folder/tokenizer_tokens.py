"""Added and special tokens that the files beside a tokenizer.json name, as transformers adds them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.tokenizer_changes import TOKEN_FLAGS
from nestvec.errors import FormatError
from nestvec.model_store.folder.tokenizer_classes import SPECIAL_TOKENS, TokenizerClass
from nestvec.model_store.sources.file_names import (
    ADDED_TOKENS_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
)
from nestvec.model_store.sources.tokenizer_parts import TokenizerParts
from nestvec.system.json_files import read_json

DECODER: Final = "added_tokens_decoder"
LISTS: Final = ("additional_special_tokens", "extra_special_tokens")
# Flags that decide where a token is found; `special` only decides how it is shown.
FINDING_FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized")

Token = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """The tokens that a folder names.

    Attributes:
        changed: Those that tokenizer.json does not list, or with other flags, in the order in which they are added.
        special: Content of the special tokens by the name of their setting (`eos_token`); None where it is null.
        ids: Ids of special and changed tokens, by content.
    """

    changed: tuple[Token, ...]
    special: Mapping[str, str | None]
    ids: Mapping[str, int]


def read_added_tokens(
    folder: Path,
    fields: Mapping[str, Any],
    tokenizer_class: TokenizerClass,
    parts: TokenizerParts,
    vocabulary_size: int,
) -> AddedTokens:
    """Read the tokens that tokenizer_config.json names, or the older files where it lists none.

    Args:
        folder: Holds the files.
        fields: Content of tokenizer_config.json.
        tokenizer_class: Whose default special tokens count where no file names others.
        parts: What tokenizer.json says.
        vocabulary_size: Rows of the embedding table; a new token without a row is left out, as no text with it could
            be embedded.

    Raises:
        FormatError: A field is not what it must be; names file and field.
    """
    listed = {token["content"]: dict(token) for token in parts.added_tokens}
    named, others = _special_tokens(folder, fields, tokenizer_class)
    if DECODER in fields:
        wanted = _decoder(folder / TOKENIZER_CONFIG_FILE, fields[DECODER])
    else:
        wanted = _older_files(folder, named, others)
    known = {*listed, *(token["content"] for token in wanted)}
    for token in (*filter(None, named.values()), *others):
        if token["content"] not in known or token is _own_mask(fields, tokenizer_class, named):
            known.add(token["content"])
            wanted.append({**token, "special": True})
    changed = [token for token in wanted if _differs(token, listed.get(token["content"]))]
    special = {name: token["content"] if token else None for name, token in named.items()}
    ids = {content: int(token["id"]) for content, token in listed.items()}
    missing = [content for content in special.values() if content and content not in ids]
    if changed or missing:
        # Without a tokenizer_config.json the class is only likely: a folder may have another tokenizer than its family.
        defaults = () if fields else tokenizer_class.tokens.values()
        changed = _with_ids(changed, missing, ids, parts, vocabulary_size, defaults)
    return AddedTokens(tuple(changed), special, ids)


def _own_mask(
    fields: Mapping[str, Any], tokenizer_class: TokenizerClass, named: Mapping[str, Token | None]
) -> Token | None:
    """The mask token whose flags are the class's own, whatever tokenizer.json says: one that no file names."""
    is_own = tokenizer_class.mask_is_normalized is not None and fields
    return named.get("mask_token") if is_own and "mask_token" not in fields else None


def _with_ids(
    changed: list[Token],
    missing: list[str],
    ids: dict[str, int],
    parts: TokenizerParts,
    vocabulary_size: int,
    defaults: Collection[str],
) -> list[Token]:
    """Give new tokens ids as the library does, into `ids`; and leave out those that have no embedding.

    A class's defaults are left out too, where the vocabulary lacks them.
    """
    vocabulary = parts.vocabulary()
    ids |= {content: vocabulary[content] for content in missing if content in vocabulary}
    following = max(len(vocabulary), max(ids.values(), default=-1) + 1)
    kept = []
    for token in changed:
        content = token["content"]
        if content not in ids:
            token_id = vocabulary.get(content, following)
            if token_id >= vocabulary_size or (content in defaults and content not in vocabulary):
                continue
            following += token_id == following
            ids[content] = token_id
        kept.append(token)
    return kept


def _differs(token: Token, listed: Mapping[str, Any] | None) -> bool:
    return listed is None or any(
        bool(token[flag]) != bool(listed.get(flag, False)) for flag in FINDING_FLAGS
    )


def _token(value: object, what: str, *, is_special: bool) -> Token:
    """A token with all its flags, of a text or an object.

    Raises:
        FormatError: It is neither.
    """
    content = {"content": value} if isinstance(value, str) else value
    if not isinstance(content, dict) or not isinstance(content.get("content"), str):
        raise FormatError(
            f"{what} must be a token: a text, or an object with its content and flags"
        )
    special = bool(content.get("special", is_special)) or is_special
    flags = {flag: bool(content.get(flag, False)) for flag in TOKEN_FLAGS}
    normalized = content.get("normalized")
    flags["normalized"] = (not special) if normalized is None else bool(normalized)
    return {"content": content["content"], **flags, "special": special}


def _decoder(path: Path, decoder: object) -> list[Token]:
    """The tokens of `added_tokens_decoder`, by their ids."""
    what = f"{path}: {DECODER}"
    if not isinstance(decoder, dict):
        raise FormatError(f"{what} must be an object of tokens by their ids")
    try:
        numbered = sorted((int(number), number) for number in decoder)
    except ValueError:
        raise FormatError(f"{what} must be an object of tokens by their ids") from None
    tokens = [decoder[number] for _, number in numbered]
    if not all(isinstance(token, dict) for token in tokens):
        raise FormatError(f"{what} must hold objects with a token's content and flags")
    return [_token(token, what, is_special=False) for token in tokens]


def _special_tokens(
    folder: Path, fields: Mapping[str, Any], tokenizer_class: TokenizerClass
) -> tuple[dict[str, Token | None], list[Token]]:
    """The special tokens by the name of their setting, and those without one."""
    named: dict[str, Token | None] = {
        name: _token(token, name, is_special=True) for name, token in tokenizer_class.tokens.items()
    }
    if tokenizer_class.mask_is_normalized is not None and (mask := named.get("mask_token")):
        mask |= {"lstrip": True, "normalized": tokenizer_class.mask_is_normalized}
    others: list[Token] = []
    sources: list[tuple[Path, Mapping[str, Any]]] = [(folder / TOKENIZER_CONFIG_FILE, fields)]
    path = folder / SPECIAL_TOKENS_FILE
    if DECODER not in fields and path.is_file():
        sources.append((path, read_json(path)))
    for file, values in sources:
        for name in SPECIAL_TOKENS:
            if name in values:
                value = values[name]
                what = f"{file}: {name}"
                named[name] = None if value is None else _token(value, what, is_special=True)
        for name in LISTS:
            value = values.get(name) or []
            tokens = list(value.values()) if isinstance(value, dict) else value
            if not isinstance(tokens, list):
                raise FormatError(f"{file}: {name} must be a list of tokens")
            others += [_token(token, f"{file}: {name}", is_special=True) for token in tokens]
    return named, others


def _older_files(
    folder: Path, named: Mapping[str, Token | None], others: list[Token]
) -> list[Token]:
    """The tokens of added_tokens.json, by their ids."""
    path = folder / ADDED_TOKENS_FILE
    if not path.is_file():
        return []
    content = read_json(path)
    if not all(isinstance(number, int) for number in content.values()):
        raise FormatError(f"{path}: must give the ids of tokens by their content")
    special = {token["content"] for token in (*filter(None, named.values()), *others)}
    return [
        _token(token, str(path), is_special=token in special)
        for token, _ in sorted(content.items(), key=lambda pair: pair[1])
    ]
