"""Embedder: texts and pictures to vectors in a caller's own Python process, over the engine that the server runs."""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Self, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.assembly.library.calls import (
    Advance,
    EmbedOptions,
    TextsCall,
    checked_texts,
    run_call,
    texts_call,
    truncation,
)
from nestvec.assembly.library.inputs import (
    LibraryInput,
    checked_inputs,
    is_one_input,
    read_pictures,
)
from nestvec.assembly.library.loop_thread import LoopThread
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.observer import NullObserver
from nestvec.engine.outputs.relevance import RelevanceScorer, TextSide
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.errors import EmptyInputError, InputError
from nestvec.observability.logs import configure_library_logs

Result = TypeVar("Result")

OTHER_PROCESS: Final = (
    "this Embedder was made in another process, and its threads did not come along into this fork; make one here, in "
    "each worker (see docs/library.md)"
)
CLOSED: Final = "this Embedder is closed"
NO_PICKLE: Final = (
    "an Embedder holds a loaded model and cannot be sent to another process; make one in each worker, once: pools take "
    "an initializer for that (see docs/library.md)"
)


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's place in a ranking.

    Attributes:
        index: Its index in the list of documents.
        score: How relevant it is: a probability by a cross-encoder, a cosine by a model of vectors, a sum of cosines by
            a model of token vectors.
    """

    index: int
    score: float


class Embedder:
    """Embeds texts and ranks documents in this process, without a server.

    It loads its models when it is made: the first time fetches and exports them, later it takes about a second. Its
    methods may be called from any thread; those that begin with an "a" are for async code, and hold up no event loop.
    Close it, or use it as a context manager, to free the models before the process ends.

    Args:
        model: Card name, folder, or Hub id (org/name); several serve side by side, and calls name theirs. By default
            what NESTVEC_MODEL says, else all-MiniLM-L6-v2.
        config: A TOML file with settings.
        settings: Any setting by its name in docs/configuration.md (`precision="int8"`, `offline=True`); NESTVEC_*
            variables set what is not given. Bounds that protect a server from its callers are off unless given.

    Raises:
        ConfigError: A setting is wrong.
        ModelError: A model cannot be fetched, exported or run.
    """

    def __init__(
        self,
        model: str | Sequence[str] | None = None,
        *,
        config: str | Path | None = None,
        **settings: Any,  # noqa: ANN401 - the settings check them
    ) -> None:
        configure_library_logs()
        self._settings = _library_settings(model, config, settings)
        service = build_local_service(self._settings, NullObserver())
        self._service = service
        self._loop = LoopThread()
        self._pid = os.getpid()
        # Also at the end of the process, so that no thread of ours runs while the interpreter goes.
        self._finalizer = weakref.finalize(self, _close, service, self._loop, self._pid)
        try:
            self._run(_load_all(service))
        except BaseException:
            self.close()
            raise

    @classmethod
    async def open(
        cls,
        model: str | Sequence[str] | None = None,
        *,
        config: str | Path | None = None,
        **settings: Any,  # noqa: ANN401 - the settings check them
    ) -> Self:
        """Make an embedder from async code: the event loop is free while the models load.

        Raises:
            ConfigError: A setting is wrong.
            ModelError: A model cannot be fetched, exported or run.
        """
        return await asyncio.to_thread(lambda: cls(model, config=config, **settings))

    def embed(
        self,
        texts: "LibraryInput | Iterable[LibraryInput]",
        *,
        progress: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> NDArray[Any]:
        """Embed a text or a picture, `[D]`, or many, `[N, D]`; bits are packed, eight to a number: `[N, D / 8]`.

        Args:
            texts: A text, or any number of them. For models that read both, a picture among them is the bytes of its
                file, a path (of `pathlib`, as a string is a text) or an image of Pillow's.
            progress: Whether to show a bar.
            options: What is asked for them: `EmbedOptions`.

        Raises:
            InputError: A text, a picture or an option is refused; names the option, or the input's index.
            UnknownModelError: No model has the name.
            RuntimeError: The embedder is closed, or was made in another process.
        """
        call = _call_of(texts, options)
        with _bar(len(call.texts), shows=progress) as advance:
            vectors = self._run(call.embed(self._service, advance))
        return vectors[0] if is_one_input(texts) else vectors

    async def aembed(
        self,
        texts: "LibraryInput | Iterable[LibraryInput]",
        *,
        progress: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> NDArray[Any]:
        """Embed as `embed` does, from async code."""
        call = _call_of(texts, options)
        with _bar(len(call.texts), shows=progress) as advance:
            vectors = await self._run_async(call.embed(self._service, advance))
        return vectors[0] if is_one_input(texts) else vectors

    def rerank(
        self,
        query: "LibraryInput",
        documents: "Iterable[LibraryInput]",
        *,
        top_n: int | None = None,
        model: str = "",
        truncate: Literal["error", "end", "start"] = "end",
    ) -> list[RankedDocument]:
        """Rank documents by how well they answer a query, the best first.

        A cross-encoder does it best, and is taken where one of several models is one; models of vectors rank by cosine,
        models of token vectors by the sum of each of the query's greatest.

        Args:
            query: What is looked for: a text or a picture.
            documents: The candidates, texts and pictures; where there is a picture, a model of vectors ranks.
            top_n: How many to return; all by default.
            model: Which of several models.
            truncate: What is done with a document that is too long.

        Raises:
            InputError: A text or a picture is refused, or no document is given.
            UnsupportedError: The model scores no pairs, or no pictures.
            RuntimeError: The embedder is closed, or was made in another process.
        """
        return self._run(self._rerank(query, documents, top_n, model, truncate))

    async def arerank(
        self,
        query: "LibraryInput",
        documents: "Iterable[LibraryInput]",
        *,
        top_n: int | None = None,
        model: str = "",
        truncate: Literal["error", "end", "start"] = "end",
    ) -> list[RankedDocument]:
        """Rank as `rerank` does, from async code."""
        return await self._run_async(self._rerank(query, documents, top_n, model, truncate))

    def count_tokens(
        self, texts: str | Iterable[str], *, model: str = "", prompt_name: str | None = None
    ) -> list[int]:
        """Count each text's tokens as the model would take them, special tokens included and nothing cut off.

        Raises:
            InputError: A text is no string, or there is no such prompt.
        """
        listed = checked_texts([texts] if isinstance(texts, str) else texts, "texts")
        work = self._service.token_calls.describe(
            listed, adds_special_tokens=True, prompt_name=prompt_name, model=model
        )
        return [len(described) for described in self._run(work)] if listed else []

    def info(self, model: str = "") -> ModelSpec:
        """Return what a model is: its name, dimensions, tokens, prompts, and the space of its vectors.

        Raises:
            UnknownModelError: No model has the name.
        """

        async def find() -> ModelSpec:
            async with self._service.pool.using(model) as served:
                return served.spec

        return self._run(find())

    def close(self) -> None:
        """Free the models; calls under way fail. A closed embedder stays closed."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    @override
    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            TypeError: Always; says what to do instead.
        """
        raise TypeError(NO_PICKLE)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        self._check_usable(work)
        return self._loop.run(work)

    async def _run_async(self, work: Coroutine[Any, Any, Result]) -> Result:
        self._check_usable(work)
        return await self._loop.run_async(work)

    def _check_usable(self, work: Coroutine[Any, Any, Any]) -> None:
        """Refuse work that nobody would do, instead of waiting for it for ever.

        Raises:
            RuntimeError: The embedder is closed, or was made in another process.
        """
        if self._pid != os.getpid() or not self._loop.is_alive:
            work.close()
            raise RuntimeError(CLOSED if self._pid == os.getpid() else OTHER_PROCESS)

    async def _rerank(
        self,
        query: "LibraryInput",
        documents: "Iterable[LibraryInput]",
        top_n: int | None,
        model: str,
        truncate: str,
    ) -> list[RankedDocument]:
        """Score all documents, and put them in order."""
        listed = checked_inputs(documents, "documents")
        if not listed:
            raise EmptyInputError("'documents' must not be empty", param="documents")
        if top_n is not None and top_n < 1:
            raise InputError("'top_n' must be at least 1", param="top_n")
        cuts = truncation(truncate) or Truncation.END
        service = self._service
        asked = await read_pictures(checked_inputs([query], "query"), "query")
        read = await read_pictures(listed, "documents")
        are_texts = all(isinstance(value, str) for value in (*asked, *read))
        kind = OutputKind.LABELS if are_texts else OutputKind.DENSE
        async with service.pool.using(model, kind) as served:
            scorer = RelevanceScorer(served.spec, self._score_side, _compute, served.spec.name)
            query_side = TextSide(asked, "query", "query", is_list=False)
            scored = await scorer.scores(query_side, TextSide(read, "documents", "passage"), cuts)
        order = np.argsort(-scored.values, kind="stable")[:top_n].tolist()
        return [RankedDocument(index, float(scored.values[index])) for index in order]

    async def _score_side(self, call: EmbedCall, side: TextSide) -> EmbedResult:
        return await run_call(self._service, call, side.source or "documents")


def _library_settings(
    model: str | Sequence[str] | None, config: str | Path | None, given: dict[str, Any]
) -> Settings:
    """Return settings without the bounds that protect callers from each other, but those that are given.

    Raises:
        ConfigError: A setting is wrong.
    """
    flags = dict(given)
    names = [model] if isinstance(model, str) else list(model or ())
    if names:
        flags["model"] = names[0]
    if len(names) > 1:
        flags["models"] = names[1:]
    file = None if config is None else Path(config)
    settings = load_settings(flags, config=file, spell=str)
    kept = {name: getattr(settings, name) for name in (*flags, "models", "adapters", "recipes")}
    return settings.for_offline_tools().model_copy(update=kept)


async def _load_all(service: EmbeddingService) -> None:
    """Load all models, so that a call without a name finds the one that can answer it."""
    for slot in service.models.all():
        if slot.loads_at_start:
            await service.pool.load(slot)


def _close(service: EmbeddingService, loop: LoopThread, pid: int) -> None:
    """End the threads of an embedder, which are in the process that made it."""
    if os.getpid() == pid:
        service.close()
        loop.close()


def _call_of(texts: "LibraryInput | Iterable[LibraryInput]", options: EmbedOptions) -> TextsCall:
    return texts_call([texts] if is_one_input(texts) else texts, options)


async def _compute(work: Callable[[], Result], *, size: int) -> Result:
    """Compute in a thread: calls of other threads need the event loop meanwhile."""
    del size
    return await asyncio.to_thread(work)


@contextmanager
def _bar(total: int, *, shows: bool) -> Iterator[Advance]:
    """Show a bar of texts, where one is asked for."""
    if not shows:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    lock = threading.Lock()
    with tqdm(total=total, unit="text", file=sys.stderr) as bar:

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        yield advance
