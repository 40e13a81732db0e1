"""Our own form of `late_chunking`: documents, and how each is to be cut.

`true` says that the inputs are consecutive chunks (Jina's form). An object says that they are documents: with
`spans`, a list of [start, stop) in characters for each document, or with a `splitter` that finds them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nestvec.api.requests.fields import Body, as_integer, choice_field, integer_field, text_field
from nestvec.engine.splitting import Span, Splitter, SplitterKind
from nestvec.errors import InputError

FIELD: Final = "late_chunking"
KNOWN: Final = ("spans", "splitter", "chunk_tokens", "overlap_tokens", "language")
PAIR: Final = 2
MOST_SPANS: Final = 2048
LEAST_CHUNK_TOKENS: Final = 4


def is_late(body: Body) -> bool:
    """Whether inputs are consecutive chunks.

    Raises:
        InputError: The field is neither a boolean nor an object.
    """
    value = body.get(FIELD)
    if value is not None and not isinstance(value, bool | dict):
        raise InputError(
            f"'{FIELD}' must be true, false, or an object with 'spans' or 'splitter'",
            param=FIELD,
            code="invalid_type",
        )
    return value is True


def parse_splits(body: Body, documents: int) -> tuple[tuple[Span, ...] | Splitter, ...]:
    """How each document is to be cut; nothing where inputs are no documents.

    Raises:
        InputError: Names what is wrong in the object.
    """
    value = body.get(FIELD)
    if not isinstance(value, dict):
        return ()
    if unknown := sorted(set(value) - set(KNOWN)):
        raise InputError(
            f"'{FIELD}' has no '{unknown[0][:50]}'; known: {', '.join(KNOWN)}", param=FIELD
        )
    if ("spans" in value) == ("splitter" in value):
        raise InputError(f"'{FIELD}' needs either 'spans' or 'splitter'", param=FIELD)
    if "splitter" in value:
        return (_splitter(value),) * documents
    if extra := sorted(set(value) - {"spans"}):
        raise InputError(f"'{FIELD}.{extra[0]}' goes with a splitter", param=FIELD)
    return _spans(value["spans"], documents)


def _splitter(given: Mapping[str, Any]) -> Splitter:
    try:
        kind = choice_field(given, "splitter", [kind.value for kind in SplitterKind])
        size, overlap = integer_field(given, "chunk_tokens"), integer_field(given, "overlap_tokens")
        language = text_field(given, "language") or "en"
    except InputError as error:
        error.param = FIELD
        raise
    if kind is None:
        raise InputError(f"'{FIELD}.splitter' must not be null", param=FIELD)
    if size is not None and size < LEAST_CHUNK_TOKENS:
        raise InputError(
            f"'{FIELD}.chunk_tokens' must be at least {LEAST_CHUNK_TOKENS}", param=FIELD
        )
    found = Splitter(SplitterKind(kind), size or 0, overlap or 0, language)
    if overlap and found.kind is not SplitterKind.TOKENS:
        raise InputError(f"'{FIELD}.overlap_tokens' goes with the splitter 'tokens'", param=FIELD)
    if not 0 <= found.overlap_tokens <= found.size // 2:
        raise InputError(
            f"'{FIELD}.overlap_tokens' must be 0 to {found.size // 2}, half a chunk", param=FIELD
        )
    return found


def _spans(given: object, documents: int) -> tuple[tuple[Span, ...], ...]:
    """A list of pairs for each document; one document's may come bare."""
    if not isinstance(given, list) or not given:
        raise InputError(
            f"'{FIELD}.spans' must be a list of [start, stop] for each document", param=FIELD
        )
    if (
        documents == 1
        and isinstance(given[0], list)
        and given[0]
        and as_integer(given[0][0]) is not None
    ):
        given = [given]
    if len(given) != documents:
        raise InputError(
            f"'{FIELD}.spans' has {len(given)} lists for {documents} documents", param=FIELD
        )
    if sum(len(own) for own in given if isinstance(own, list)) > MOST_SPANS:
        raise InputError(f"'{FIELD}.spans' may hold {MOST_SPANS} spans", param=FIELD)
    return tuple(_of_document(own, number) for number, own in enumerate(given))


def _of_document(given: object, document: int) -> tuple[Span, ...]:
    if not isinstance(given, list) or not given:
        raise InputError(f"document {document} needs at least one span", param=FIELD)
    return tuple(_span(pair, document, number) for number, pair in enumerate(given))


def _span(given: object, document: int, number: int) -> Span:
    edges = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
    found = [as_integer(edge) for edge in edges]
    if len(found) != PAIR or found[0] is None or found[1] is None:
        raise InputError(
            f"span {number} of document {document} must be [start, stop]",
            param=FIELD,
            code="invalid_type",
        )
    return found[0], found[1]
