"""Documents to chunks: where they are cut, for those who want the places alone, and by vectors of their sentences.

A document that is cut where its matter turns (`SplitterKind.SEMANTIC`) needs vectors of its sentences first. They are
embedded as any texts are, by the same model, within the same bounds and deadline, and they count as tokens of the call.
"""

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.front.front_threads import FrontThreads
from nestvec.engine.front.validation import check_output
from nestvec.engine.front.vector_plan import resolve_plan
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.results import Chunk, EmbedResult
from nestvec.engine.splitting import Span, Splitter
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.long_texts import check_chars
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.errors import DeadlineError, InputError

# Comparing neighbouring sentences takes about as long as tokenizing so many characters.
CHARS_PER_SENTENCE: Final = 64


class SentenceEmbedder(Protocol):
    """What chunking needs of the service."""

    @property
    def pool(self) -> ModelPool:
        """The models."""

    @property
    def front(self) -> FrontThreads:
        """The threads that tokenize."""

    @property
    def limits(self) -> ServiceLimits:
        """Bounds on one call."""

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """Embed the inputs of one call."""


@dataclass(frozen=True, slots=True)
class ChunkedDocuments:
    """Where documents are cut.

    Attributes:
        chunks: The chunks of all documents, in their order.
        tokens: Tokens of each document, special tokens apart.
        sentence_tokens: Tokens that were run to find where each document is cut; 0 where none were.
        model: Name of the model whose tokens these are.
    """

    chunks: tuple[Chunk, ...]
    tokens: tuple[int, ...]
    sentence_tokens: tuple[int, ...]
    model: str


@dataclass(frozen=True, slots=True)
class _Document:
    """A document on its way: where its tokens start, and its sentences where they are needed."""

    starts: "array[int]"
    splitter: Splitter
    sentences: Sequence[Span] = ()


def needs_sentences(call: EmbedCall) -> bool:
    """Return whether a call's documents are cut where their matter turns, and that is not known yet."""
    return any(isinstance(split, Splitter) and split.needs_sentences for split in call.splits)


async def embed_semantically(service: SentenceEmbedder, call: EmbedCall) -> EmbedResult:
    """Embed documents that are cut where their matter turns: their sentences first, then the chunks.

    Raises:
        NestvecError: The engine's reason why there are no vectors.
    """
    # What would be refused of the chunks' vectors is, before any sentence is embedded.
    async with service.pool.using(call.model, call.kind) as model:
        allows = service.limits.allows_untrained_layers
        check_output(call, model, resolve_plan(call, model, allows_untrained=allows))
    found, splits = await _find(service, call)
    result = await service.embed(replace(call, splits=splits))
    pairs = zip(result.input_tokens, found.sentence_tokens, strict=True)
    return replace(result, input_tokens=tuple(map(sum, pairs)))


async def chunk_documents(service: SentenceEmbedder, call: EmbedCall) -> ChunkedDocuments:
    """Find where documents are cut, without a vector of any chunk.

    Args:
        service: Tokenizes, and embeds sentences where they are needed.
        call: Its inputs are documents, and its splits say by which splitter each is cut.

    Raises:
        InputError: A document cannot be tokenized, or holds no token; names it.
        RequestTooLargeError: The documents, their tokens, or their chunks are too many.
        UnknownModelError: No model has the name.
        CapacityError: The queue is full, the deadline passed, or the model cannot be loaded.
    """
    return (await _find(service, call))[0]


async def _find(
    service: SentenceEmbedder, call: EmbedCall
) -> tuple[ChunkedDocuments, tuple[Splitter, ...]]:
    """Where documents are cut, and the splitters that know it."""
    service.limits.check_inputs(call)
    chars = service.limits.check_characters(call, "")
    ticket = WorkTicket.until(call.deadline_s, service.front.clock)
    try:
        async with asyncio.timeout(ticket.seconds_left()), service.pool.using(call.model) as model:
            options = TokenizeOptions(
                Truncation.WINDOWS, ticket=ticket, budget=service.limits.token_budget(call)
            )
            texts = cast("Sequence[str]", call.inputs)

            def read() -> list[_Document]:
                return [
                    _read(model.tokenizer, text, cast("Splitter", split), options, number)
                    for number, (text, split) in enumerate(zip(texts, call.splits, strict=True))
                ]

            documents = await service.front.run(read, ticket, chars=chars)
            vectors, sentence_tokens = await _embed_sentences(service, call, texts, documents)

            def cut() -> tuple[tuple[Splitter, ...], tuple[Chunk, ...]]:
                splitters = [
                    _with_edges(document, rows, ticket)
                    for document, rows in zip(documents, vectors, strict=True)
                ]
                chunks: list[Chunk] = []
                for number, (document, splitter) in enumerate(
                    zip(documents, splitters, strict=True)
                ):
                    spans = splitter.spans(texts[number], document.starts, ticket.check)
                    chunks += _chunks(spans, document.starts, number, options)
                return tuple(splitters), tuple(chunks)

            sentences = sum(len(document.sentences) for document in documents)
            work_chars = chars + CHARS_PER_SENTENCE * sentences
            splitters, chunks = await service.front.run(cut, ticket, chars=work_chars)
    except TimeoutError:
        raise DeadlineError("The deadline passed before the documents were cut.") from None
    tokens = tuple(len(document.starts) for document in documents)
    found = ChunkedDocuments(chunks, tokens, sentence_tokens, model.spec.name)
    return found, splitters


def _read(
    tokenizer: Tokenizer, text: str, splitter: Splitter, options: TokenizeOptions, number: int
) -> _Document:
    """Tokenize a document, and find its sentences where they are needed."""
    options.check_going_on()
    check_chars(text, number)
    _, found = tokenizer.encode_with_starts(text, options, number)
    options.note_tokens(len(found))
    options.check_going_on()
    starts = array("q", found.tobytes())
    if not starts:
        raise InputError("this document has no token", param="input", input_index=number)
    if not splitter.needs_sentences:
        return _Document(starts, splitter)
    sentences = splitter.sentences(text, starts, options.ticket.check)
    if options.budget is not None:
        options.budget.add_sentences(len(sentences))
    return _Document(starts, splitter, sentences)


async def _embed_sentences(
    service: SentenceEmbedder, call: EmbedCall, texts: Sequence[str], documents: list[_Document]
) -> tuple[list[NDArray[np.float32]], tuple[int, ...]]:
    """Vectors of each document's sentences, (n, D), and the tokens that were run for them."""
    pieces = [
        text[start:stop]
        for text, document in zip(texts, documents, strict=True)
        for start, stop in document.sentences
    ]
    rows: list[NDArray[np.float32]] = []
    tokens: list[int] = []
    for first in range(0, len(pieces), service.limits.max_inputs):
        part = EmbedCall(
            pieces[first : first + service.limits.max_inputs],
            model=call.model,
            normalize=True,
            truncate=Truncation.END,
            key_id=call.key_id,
            priority=call.priority,
            deadline_s=call.deadline_s,
            kind=OutputKind.DENSE,
            adapter=call.adapter,
            uses_cache=call.uses_cache,
            admit=call.admit,
        )
        result = await service.embed(part)
        rows.append(result.vectors)
        tokens += result.input_tokens
    vectors = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    counts = [len(document.sentences) for document in documents]
    stops = np.cumsum(counts).tolist()
    spans = [(stop - count, stop) for count, stop in zip(counts, stops, strict=True)]
    return [vectors[a:b] for a, b in spans], tuple(sum(tokens[a:b]) for a, b in spans)


def _with_edges(document: _Document, vectors: NDArray[np.float32], ticket: WorkTicket) -> Splitter:
    """The document's splitter, which knows where it is cut."""
    if not document.splitter.needs_sentences:
        return document.splitter
    return document.splitter.with_edges(document.sentences, vectors, document.starts, ticket.check)


def _chunks(
    spans: Sequence[Span], starts: "array[int]", document: int, options: TokenizeOptions
) -> list[Chunk]:
    """A document's spans with their tokens."""
    if options.budget is not None:
        options.budget.add_chunks(len(spans))
    places = np.searchsorted(np.asarray(starts), np.asarray(spans)).tolist()
    return [
        Chunk(document, start, stop, last - first)
        for (start, stop), (first, last) in zip(spans, places, strict=True)
    ]
