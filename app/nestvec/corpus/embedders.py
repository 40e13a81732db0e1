"""What turns the texts of a corpus into vectors: the engine of this process, or a running server."""

import asyncio
import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.engine.vector_plan import find_way
from nestvec.errors import InputError, SourceError

TIMEOUT_S: Final = 300.0
TRIES: Final = 8
MOST_WAIT_S: Final = 30.0
RETRIED: Final = (429, 502, 503, 504)
TOO_LARGE: Final = ("max_tokens_per_request", "request_too_large", "body_too_large")
INPUT_INDEX: Final = re.compile(r"input\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Model:
    """What an output says of where its vectors come from."""

    name: str
    space: str
    source: str
    hidden_size: int
    max_tokens: int
    quantization: str  # id of the ranges that int8 and uint8 are given in


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What is asked for all texts alike."""

    dimensions: int | None = None
    output_dtype: OutputDtype = OutputDtype.FLOAT32
    truncate: Truncation = Truncation.END
    prompt_name: str | None = None
    layers: int | None = None
    map_name: str | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of some texts.

    Attributes:
        vectors: (N, D) of the dtype asked for; (N, D / 8) for bits.
    """

    vectors: NDArray[Any]
    tokens: int
    truncated: int


class Embedder(Protocol):
    """Gives vectors."""

    async def model(self, options: TextOptions) -> Model:
        """Which model it is, and what space its vectors are in.

        Raises:
            InputError: It has no such layers or map.
        """

    async def embed(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """Vectors of texts, in order.

        Raises:
            InputError: One of them, or an option, cannot be; names the text's index.
        """


class EngineEmbedder:
    """The engine of this process.

    Args:
        service: With one model.
    """

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def model(self, options: TextOptions) -> Model:
        """The one that is loaded."""
        served = self._service.models.resolve("")
        spec = served.spec
        call = EmbedCall((), layers=_layers(options), map_id=options.map_name)
        allows = self._service.limits.allows_untrained_layers
        way = find_way(call, served, allows_untrained=allows)
        width = spec.hidden_size if way.map is None else way.map.width
        return Model(spec.name, way.space, spec.source, width, spec.max_tokens, way.quantiser.id)

    async def embed(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """As bulk."""
        call = EmbedCall(
            inputs=list(texts),
            dimensions=options.dimensions,
            truncate=options.truncate,
            prompt_name=options.prompt_name,
            output_dtypes=(options.output_dtype,),
            priority=Priority.BULK,
            layers=_layers(options),
            map_id=options.map_name,
        )
        result = await self._service.embed(call)
        vectors = result.converted[options.output_dtype]
        return Embedded(vectors, sum(result.input_tokens), sum(result.is_truncated))


class ServerEmbedder:
    """A running server, over its OpenAI API.

    Args:
        url: Its base, with or without /v1.
        key: An API key, "" for none.
        model: The name to ask for, "" for the server's only one.
    """

    def __init__(self, url: str, *, key: str, model: str) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        base = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.AsyncClient(base_url=base, headers=headers, timeout=TIMEOUT_S)
        self._model = model

    async def model(self, options: TextOptions) -> Model:
        """What the server says of it.

        Raises:
            SourceError: The server cannot be reached, or has no such model.
            InputError: It has no such layers or map.
        """
        listed = (await self._ask("GET", "/v1/models")).json()["data"]
        found = [m for m in listed if self._model in ("", m["id"], m["root"], *m["aliases"])]
        if not found:
            raise SourceError(f"the server does not serve '{self._model}'")
        one: dict[str, Any] = found[0]
        hidden_size, max_tokens = int(one["dimensions"]["native"]), int(one["max_model_len"])
        quantization = str(one["quantization"]["id"])
        space = str(one["space"])
        if options.layers is not None or options.map_name is not None:
            # What comes out is told with vectors only.
            body = {"input": "a", "output_dtype": "int8", **self._chosen(options)}
            del body["dimensions"]
            answer = await self._ask("POST", "/v1/embeddings", body)
            space = answer.headers["x-embed-space"]
            quantization = answer.headers["x-embed-quantization"]
            hidden_size = len(answer.json()["data"][0]["embedding"])
        return Model(one["root"], space, one["source"], hidden_size, max_tokens, quantization)

    async def embed(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """In as many requests as the server's limits ask for."""
        body: dict[str, Any] = {
            "input": list(texts),
            "encoding_format": "base64",
            "truncate": options.truncate.value,
            "output_dtype": options.output_dtype.value,
        }
        body |= self._chosen(options)
        try:
            answer = await self._ask("POST", "/v1/embeddings", body)
        except InputError as error:
            if error.code not in TOO_LARGE or len(texts) == 1:
                raise
            return await self._halves(texts, options)
        found = answer.json()
        stored = options.output_dtype.stored
        rows = [np.frombuffer(base64.b64decode(d["embedding"]), stored) for d in found["data"]]
        truncated = int(answer.headers.get("x-embed-truncated", 0))
        return Embedded(np.stack(rows), int(found["usage"]["total_tokens"]), truncated)

    def _chosen(self, options: TextOptions) -> dict[str, Any]:
        """Fields of a body for what is asked for; null is what a server takes for absent."""
        return {
            "model": self._model or None,
            "dimensions": options.dimensions,
            "prompt_name": options.prompt_name,
            "layers": options.layers,
            "map": options.map_name,
        }

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def _halves(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        middle = len(texts) // 2
        first = await self.embed(texts[:middle], options)
        try:
            second = await self.embed(texts[middle:], options)
        except InputError as error:
            if error.input_index is not None:
                error.input_index += middle
            raise
        return Embedded(
            np.concatenate([first.vectors, second.vectors]),
            first.tokens + second.tokens,
            first.truncated + second.truncated,
        )

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        """Ask until the server has room.

        Raises:
            InputError: It refuses the request.
            SourceError: It cannot be reached, or fails.
        """
        headers = {"x-embed-priority": "bulk"}
        tries = 0
        while True:
            tries += 1
            wait_s = 2.0**tries / 8
            try:
                answer = await self._client.request(method, path, json=body, headers=headers)
            except httpx.HTTPError as error:
                if tries == TRIES:
                    raise SourceError(f"the server cannot be reached ({error!r})") from error
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in RETRIED or tries == TRIES:
                    raise _refusal(answer)
                hint = answer.headers.get("retry-after", "")
                wait_s = float(hint) if hint.isdigit() else wait_s
            await asyncio.sleep(min(wait_s, MOST_WAIT_S))


def _layers(options: TextOptions) -> tuple[int, ...]:
    return () if options.layers is None else (options.layers,)


def _refusal(answer: httpx.Response) -> InputError | SourceError:
    """A server's error as ours."""
    try:
        fault = answer.json()["error"]
        message, param, code = fault["message"], fault.get("param") or "", fault.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return SourceError(f"the server answered {answer.status_code}")
    if answer.status_code not in (400, 413, 422):
        return SourceError(f"the server answered {answer.status_code}: {message}")
    place = INPUT_INDEX.fullmatch(param)
    return InputError(message, param=param, input_index=int(place[1]) if place else None, code=code)
