"""A running server as a source of vectors: one client for `nestvec embed --url` and `nestvec quality --url`."""

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np

from nestvec.corpus.embedders import (
    Embedded,
    ModelDescription,
    OutputForm,
    TextOptions,
    whole_texts,
)
from nestvec.corpus.pacing import CallPacer, PaceLimits
from nestvec.corpus.server_client import MAX_REFUSALS, TOO_LARGE_CODES, ServerClient
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.splitting import Span
from nestvec.engine.vectors.groups import Groups, is_of_group, whole_groups
from nestvec.errors import CapacityError, InputError, SourceError

# Requests of some five seconds leave room under the 30 s of proxies and the 55 s of this server, whatever else it does.
PACE: Final = PaceLimits(
    target_s=5.0, in_flight=3, first_tokens=512, max_tokens=131_072, max_texts=1024
)
# A request of several texts that was refused so often is halved: it may be more than the key's bucket holds.
REFUSALS_OF_MANY: Final = 4


class ServerEmbedder:
    """Embeds by a running server, over its OpenAI API; an asynchronous context manager that closes its connections.

    Args:
        url: The server's base, with or without /v1.
        key: An API key, "" for none.
        model: The name to ask for, "" for the server's only model.
        clock: Monotonic seconds.
    """

    def __init__(
        self, url: str, *, key: str, model: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = ServerClient(url, key, clock)
        self.model_name = model
        self.pacer = CallPacer(PACE, clock)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()

    async def model(self, options: TextOptions) -> ModelDescription:
        """Describe the model as the server does.

        Raises:
            SourceError: The server cannot be reached, has no such model, or is no Nestvec.
            InputError: The model has no such layers or map, or the form of output is not to be had over HTTP.
        """
        if options.form is not OutputForm.DENSE:
            raise InputError(f"{options.form} vectors are made in this process; leave --url out")
        answer = await self.request("GET", "/v1/models")
        try:
            description = self._description(answer.json()["data"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{self._server.base}: does not describe its models") from error
        if options.layers is not None or options.map_name is not None:
            # The space behind layers and maps is told with vectors only.
            body = {"input": "a", "output_dtype": "int8", **self._option_fields(options)}
            del body["dimensions"]
            answer = await self.request("POST", "/v1/embeddings", body)
            description = replace(
                description,
                space=answer.headers["x-embed-space"],
                quantization=answer.headers["x-embed-quantization"],
                hidden_size=len(answer.json()["data"][0]["embedding"]),
                labels=tuple(answer.json().get("labels", ())),
            )
        self.pacer.tokens_per_text = description.max_tokens
        return description

    def _description(self, listed: Sequence[dict[str, Any]]) -> ModelDescription:
        """Describe the model that is asked for, of those that the server lists.

        Raises:
            SourceError: It is not among them.
        """
        names = {name for entry in listed for name in (entry["id"], entry["root"])}
        for entry in listed:
            if self.model_name in ("", entry["id"], entry["root"], *entry["aliases"]):
                return ModelDescription(
                    name=entry["root"],
                    space=str(entry["space"]),
                    source=entry["source"],
                    hidden_size=int(entry["dimensions"]["native"]),
                    max_tokens=int(entry["max_model_len"]),
                    quantization=str(entry["quantization"]["id"]),
                    bound=dict(entry.get("reproducibility") or {}),
                )
        raise SourceError(
            f"{self._server.base} does not serve '{self.model_name}'; it has: {', '.join(sorted(names)) or 'none'}"
        )

    async def embed(
        self,
        texts: Sequence[str | Picture],
        options: TextOptions,
        spans: Sequence[Sequence[Span]] | None = None,
        contexts: Sequence[str] = (),
        groups: Groups | None = None,
    ) -> Embedded:
        """Embed texts in as many requests as the server's limits ask for.

        Raises:
            InputError: The server refuses a text or an option; the error names the text's index.
            CapacityError: One text or group alone takes the server too long, or the key's limits refuse it.
            SourceError: The server cannot be reached, or fails.
        """
        body: dict[str, Any] = {
            "input": [_item(text) for text in texts],
            "encoding_format": "base64",
            "output_dtype": options.output_dtype.value,
            **self._option_fields(options),
        }
        if spans is None:
            body["truncate"] = options.truncate.value
        else:
            body["late_chunking"] = {"spans": [list(map(list, pairs)) for pairs in spans]}
        if any(contexts):
            body["context"] = list(contexts)
        if groups is not None:
            body["groups"] = list(groups.sizes)
            body["weights"] = list(groups.weights) or None
        whole = whole_texts(texts, contexts)
        is_one = len(texts if groups is None else groups.sizes) == 1
        refusals = MAX_REFUSALS if is_one else REFUSALS_OF_MANY
        try:
            answer, took_s = await self._server.send(
                "POST", "/v1/embeddings", body, timeouts=3 if is_one else 1, refusals=refusals
            )
        except InputError as error:
            if error.code not in TOO_LARGE_CODES or is_one:
                raise
        except CapacityError:
            if is_one:
                raise
        else:
            embedded = _embedded(answer, options)
            self.pacer.done(whole, embedded.tokens, took_s)
            return embedded
        self.pacer.too_much(whole)
        return await self._embed_parts(texts, options, spans, contexts, groups)

    async def check_composition(
        self, options: TextOptions, *, has_contexts: bool, has_groups: bool
    ) -> None:
        """Try whether the server's model takes contexts and groups, by a short text that is no part of the pace.

        Raises:
            InputError: It does not; the error says why.
            SourceError: The server cannot be reached, or fails.
        """
        body = {"input": "a", **self._option_fields(options)}
        body |= {"context": "a"} if has_contexts else {}
        body |= {"groups": [1], "output_dtype": options.output_dtype.value} if has_groups else {}
        await self.request("POST", "/v1/embeddings", body)

    async def _embed_parts(
        self,
        texts: Sequence[str | Picture],
        options: TextOptions,
        spans: Sequence[Sequence[Span]] | None,
        contexts: Sequence[str],
        groups: Groups | None,
    ) -> Embedded:
        """Embed texts part by part, each of the size that the pace has become; an error still names the right text.

        A group stays whole.
        """
        whole = whole_texts(texts, contexts)
        sizes = [1] * len(texts) if groups is None else groups.sizes
        parts: list[Embedded] = []
        start = first = 0
        while start < len(texts):
            most = min(self.pacer.take(whole, start), len(texts) // 2)
            count = whole_groups(sizes[first:], most)
            last, stop = first + count, start + sum(sizes[first : first + count])
            of_part = None if spans is None else spans[start:stop]
            of_groups = None if groups is None else groups.part(first, last)
            try:
                part, before = texts[start:stop], contexts[start:stop]
                parts.append(await self.embed(part, options, of_part, before, of_groups))
            except InputError as error:
                if error.input_index is not None:
                    error.input_index += first if is_of_group(error) else start
                raise
            start, first = stop, last
        return Embedded(
            np.concatenate([part.vectors for part in parts]),
            sum(part.tokens for part in parts),
            sum(part.truncated for part in parts),
        )

    async def token_starts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return where the tokens of each text start, in characters, without special tokens.

        Raises:
            InputError: The server refuses a text; the error names its index.
            SourceError: The server cannot be reached, fails, or does not tell.
        """
        body = {"inputs": list(texts), "add_special_tokens": False}
        try:
            rows = (await self.request("POST", "/tokenize", body)).json()
            return [[token["start"] for token in tokens] for tokens in rows]
        except InputError as error:
            if len(texts) == 1:
                error.input_index = 0
                raise
            # TEI's route does not say which text is too much, or whether all together are.
            middle = len(texts) // 2
            first = await self.token_starts(texts[:middle])
            try:
                return first + await self.token_starts(texts[middle:])
            except InputError as error_behind:
                error_behind.input_index = middle + (error_behind.input_index or 0)
                raise
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{self._server.base}: does not tell where tokens start") from error

    def _option_fields(self, options: TextOptions) -> dict[str, Any]:
        """Return the body's fields for the options; a null counts as absent."""
        return {
            "model": self.model_name or None,
            "dimensions": options.dimensions,
            "prompt_name": options.prompt_name,
            "input_type": options.prompt_role,
            "layers": options.layers,
            "map": options.map_name,
        }

    async def request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Send a request as bulk, and again as long as the server says that it is busy.

        Args:
            method: Of HTTP.
            path: Below the base URL.
            body: Sent as JSON.

        Raises:
            InputError: The server refuses the request.
            CapacityError: It takes too long, or the key's limits refuse it.
            SourceError: The server cannot be reached, or fails.
        """
        return (await self._server.send(method, path, body))[0]


def _item(text: str | Picture) -> str | dict[str, Any]:
    """Return an input as a body holds it: a picture as OpenAI's part of a data URL."""
    if isinstance(text, str):
        return text
    content = base64.b64encode(text.data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:;base64,{content}"}}


def _embedded(answer: httpx.Response, options: TextOptions) -> Embedded:
    """Read the vectors of an answer."""
    content = answer.json()
    dtype = options.output_dtype.storage_dtype
    rows = [np.frombuffer(base64.b64decode(entry["embedding"]), dtype) for entry in content["data"]]
    truncated = int(answer.headers.get("x-embed-truncated", 0))
    return Embedded(np.stack(rows), int(content["usage"]["total_tokens"]), truncated)
