"""Nestvec's form of `late_chunking`: documents, and how each is to be cut.

`true` says that the inputs are consecutive chunks of one document (Jina's form). An object says that they are
documents: with `spans`, a list of [start, stop) in characters for each document, or with a `splitter` that finds
the spans.
"""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.api.requests.fields import (
    Body,
    as_integer,
    choice_field,
    integer_field,
    option,
    text_field,
)
from nestvec.engine.splitting import Span, Splitter, SplitterKind
from nestvec.errors import InputError

FIELD: Final = "late_chunking"
OPTIONS: Final = ("spans", "splitter", "chunk_tokens", "overlap_tokens", "language")
PAIR: Final = 2
MAX_SPANS: Final = 2048
MIN_CHUNK_TOKENS: Final = 4


def is_late(body: Body) -> bool:
    """Return whether the inputs are consecutive chunks of one document.

    Raises:
        InputError: The field is neither a boolean nor an object.
    """
    value = option(body, FIELD)
    if value is not None and not isinstance(value, bool | dict):
        raise InputError(
            f"'{FIELD}' must be true, false, or an object with 'spans' or 'splitter'",
            param=FIELD,
            code="invalid_type",
        )
    return value is True


def parse_splits(body: Body, documents: int) -> tuple[tuple[Span, ...] | Splitter, ...]:
    """Read how each document is to be cut; returns nothing where the inputs are not documents.

    Args:
        body: As parsed from JSON.
        documents: How many there are.

    Raises:
        InputError: Something in the object is wrong; names it.
    """
    value = body.get(FIELD)
    if not isinstance(value, dict):
        return ()
    if unknown := set(value) - set(OPTIONS):
        raise InputError(
            f"'{FIELD}' has no '{min(unknown)[:50]}'; known: {', '.join(OPTIONS)}", param=FIELD
        )
    if ("spans" in value) == ("splitter" in value):
        raise InputError(f"'{FIELD}' needs either 'spans' or 'splitter'", param=FIELD)
    if "splitter" in value:
        return (parse_splitter(value, FIELD),) * documents
    if extra := sorted(set(value) - {"spans"}):
        raise InputError(f"'{FIELD}.{extra[0]}' goes with a splitter", param=FIELD)
    return _spans(value["spans"], documents)


def parse_splitter(options: Mapping[str, Any], place: str = "") -> Splitter:
    """Read how documents are cut.

    Args:
        options: Holds `splitter`, `chunk_tokens`, `overlap_tokens` and `language`.
        place: The field that holds them; "" for the body itself, where `splitter` may be left out.

    Raises:
        InputError: One of them is wrong; names it.
    """

    def named(name: str) -> str:
        return f"{place}.{name}" if place else name

    try:
        kind = choice_field(options, "splitter", [kind.value for kind in SplitterKind])
        size = integer_field(options, "chunk_tokens")
        overlap = integer_field(options, "overlap_tokens")
        language = text_field(options, "language") or "en"
    except InputError as error:
        error.param = place or error.param
        raise
    if kind is None and place:
        raise InputError(f"'{named('splitter')}' must not be null", param=place)
    if size is not None and size < MIN_CHUNK_TOKENS:
        raise InputError(
            f"'{named('chunk_tokens')}' must be at least {MIN_CHUNK_TOKENS}",
            param=place or "chunk_tokens",
        )
    splitter = Splitter(SplitterKind(kind or "sentences"), size or 0, overlap or 0, language)
    if overlap and splitter.kind is not SplitterKind.TOKENS:
        raise InputError(
            f"'{named('overlap_tokens')}' goes with the splitter 'tokens'",
            param=place or "overlap_tokens",
        )
    if not 0 <= splitter.overlap_tokens <= splitter.size // 2:
        raise InputError(
            f"'{named('overlap_tokens')}' must be 0 to {splitter.size // 2}, half a chunk",
            param=place or "overlap_tokens",
        )
    return splitter


def _spans(value: object, documents: int) -> tuple[tuple[Span, ...], ...]:
    """Read a list of pairs for each document; a single document's may come bare."""
    if not isinstance(value, list) or not value:
        raise InputError(
            f"'{FIELD}.spans' must be a list of [start, stop] for each document", param=FIELD
        )
    if (
        documents == 1
        and isinstance(value[0], list)
        and value[0]
        and as_integer(value[0][0]) is not None
    ):
        value = [value]
    if len(value) != documents:
        raise InputError(
            f"'{FIELD}.spans' has {len(value)} lists for {documents} documents", param=FIELD
        )
    if sum(len(pairs) for pairs in value if isinstance(pairs, list)) > MAX_SPANS:
        raise InputError(f"'{FIELD}.spans' may hold {MAX_SPANS} spans", param=FIELD)
    return tuple(_document_spans(pairs, number) for number, pairs in enumerate(value))


def _document_spans(pairs: object, document: int) -> tuple[Span, ...]:
    if not isinstance(pairs, list) or not pairs:
        raise InputError(f"document {document} needs at least one span", param=FIELD)
    return tuple(_span(pair, document, number) for number, pair in enumerate(pairs))


def _span(pair: object, document: int, number: int) -> Span:
    values = pair if isinstance(pair, list) and len(pair) == PAIR else (None, None)
    edges = [as_integer(value) for value in values]
    if edges[0] is None or edges[1] is None:
        raise InputError(
            f"span {number} of document {document} must be [start, stop]",
            param=FIELD,
            code="invalid_type",
        )
    return edges[0], edges[1]
