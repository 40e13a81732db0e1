"""A running server as a source of vectors: one client for `nestvec embed --url` and `nestvec quality --url`."""

import asyncio
import base64
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np

from nestvec.corpus.embedders import Embedded, ModelDescription, TextOptions
from nestvec.errors import InputError, SourceError

TIMEOUT_S: Final = 300.0
MAX_TRIES: Final = 8
MAX_WAIT_S: Final = 30.0
RETRIED_STATUSES: Final = (429, 502, 503, 504)
TOO_LARGE_CODES: Final = ("max_tokens_per_request", "request_too_large", "body_too_large")
INPUT_INDEX: Final = re.compile(r"input\[(\d+)\]")


class ServerEmbedder:
    """Embeds by a running server, over its OpenAI API; an asynchronous context manager that closes its connections.

    Args:
        url: The server's base, with or without /v1.
        key: An API key, "" for none.
        model: The name to ask for, "" for the server's only model.
    """

    def __init__(self, url: str, *, key: str, model: str) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        base = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.AsyncClient(base_url=base, headers=headers, timeout=TIMEOUT_S)
        self.model_name = model

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
        await self._client.aclose()

    async def model(self, options: TextOptions) -> ModelDescription:
        """Describe the model as the server does.

        Raises:
            SourceError: The server cannot be reached, or has no such model.
            InputError: The model has no such layers or map.
        """
        listed = (await self.request("GET", "/v1/models")).json()["data"]
        entries: list[dict[str, Any]] = [
            entry
            for entry in listed
            if self.model_name in ("", entry["id"], entry["root"], *entry["aliases"])
        ]
        if not entries:
            raise SourceError(f"the server does not serve '{self.model_name}'")
        entry = entries[0]
        hidden_size, max_tokens = int(entry["dimensions"]["native"]), int(entry["max_model_len"])
        quantization = str(entry["quantization"]["id"])
        space = str(entry["space"])
        if options.layers is not None or options.map_name is not None:
            # The space behind layers and maps is told with vectors only.
            body = {"input": "a", "output_dtype": "int8", **self._option_fields(options)}
            del body["dimensions"]
            answer = await self.request("POST", "/v1/embeddings", body)
            space = answer.headers["x-embed-space"]
            quantization = answer.headers["x-embed-quantization"]
            hidden_size = len(answer.json()["data"][0]["embedding"])
        return ModelDescription(
            entry["root"], space, entry["source"], hidden_size, max_tokens, quantization
        )

    async def embed(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """Embed texts in as many requests as the server's limits ask for.

        Raises:
            InputError: The server refuses a text or an option; the error names the text's index.
            SourceError: The server cannot be reached, or fails.
        """
        body: dict[str, Any] = {
            "input": list(texts),
            "encoding_format": "base64",
            "truncate": options.truncate.value,
            "output_dtype": options.output_dtype.value,
        }
        body |= self._option_fields(options)
        try:
            answer = await self.request("POST", "/v1/embeddings", body)
        except InputError as error:
            if error.code not in TOO_LARGE_CODES or len(texts) == 1:
                raise
            return await self._embed_halves(texts, options)
        content = answer.json()
        dtype = options.output_dtype.storage_dtype
        rows = [
            np.frombuffer(base64.b64decode(entry["embedding"]), dtype) for entry in content["data"]
        ]
        truncated = int(answer.headers.get("x-embed-truncated", 0))
        return Embedded(np.stack(rows), int(content["usage"]["total_tokens"]), truncated)

    def _option_fields(self, options: TextOptions) -> dict[str, Any]:
        """Return the body's fields for the options; a null counts as absent."""
        return {
            "model": self.model_name or None,
            "dimensions": options.dimensions,
            "prompt_name": options.prompt_name,
            "layers": options.layers,
            "map": options.map_name,
        }

    async def _embed_halves(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """Embed each half of the texts by itself; an error still names the right text."""
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
            SourceError: The server cannot be reached, or fails.
        """
        headers = {"x-embed-priority": "bulk"}
        tries = 0
        while True:
            tries += 1
            wait_s = 2.0**tries / 8
            try:
                answer = await self._client.request(method, path, json=body, headers=headers)
            except httpx.HTTPError as error:
                if tries == MAX_TRIES:
                    raise SourceError(f"the server cannot be reached ({error!r})") from error
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in RETRIED_STATUSES or tries == MAX_TRIES:
                    raise _refusal(answer)
                hint_s = answer.headers.get("retry-after", "")
                wait_s = float(hint_s) if hint_s.isdigit() else wait_s
            await asyncio.sleep(min(wait_s, MAX_WAIT_S))


def _refusal(answer: httpx.Response) -> InputError | SourceError:
    """Turn a server's error into one of ours, without quoting what a proxy or another program wrote."""
    try:
        fault = answer.json()["error"]
        message, param, code = fault["message"], fault.get("param") or "", fault.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return SourceError(f"the server answered {answer.status_code}")
    if answer.status_code not in (400, 413, 422):
        return SourceError(f"the server answered {answer.status_code}: {message}")
    index = INPUT_INDEX.fullmatch(param)
    return InputError(message, param=param, input_index=int(index[1]) if index else None, code=code)
