"""A running server as the source of vectors, stood in for by its application without a socket."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from nestvec.config.settings import Settings
from nestvec.corpus.embedders import EngineEmbedder, TextOptions
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.types import Truncation
from nestvec.errors import InputError, SourceError
from nestvec.main import build_app

from tests.engine.front.test_vector_plan import random_map
from tests.support.labelled_maps import concept_map
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

MakePair = Callable[..., tuple[ServerEmbedder, EngineEmbedder]]


@pytest.fixture
def make_pair(tiny_folder: Path, request: pytest.FixtureRequest) -> MakePair:
    """Return a function that makes a server's client and an embedder over the same engine."""

    def make(limits: ServiceLimits | None = None) -> tuple[ServerEmbedder, EngineEmbedder]:
        app = build_app(Settings())
        options = ServedOptions(
            spec=dataclasses.replace(SPEC, trained_layers=(2,)),
            limits=limits or ServiceLimits(),
            max_queue_tokens=10**9,
            maps=(random_map("short", width=4), concept_map()),
        )
        served: Served = serve_fake(tiny_folder / "tokenizer.json", options)
        request.addfinalizer(served.service.close)
        app.state.become_ready(served.service)
        remote = ServerEmbedder("http://server/v1/", key="", model="")
        remote._server.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://server"
        )
        return remote, EngineEmbedder(served.service)

    return make


TEXTS = [f"alpha {'beta ' * (n % 9)}{n}" for n in range(50)]


@pytest.mark.parametrize(
    "options",
    [
        TextOptions(),
        TextOptions(dimensions=3),
        TextOptions(prompt_name="query"),
        TextOptions(truncate=Truncation.START),
        TextOptions(truncate=Truncation.WINDOWS),
        TextOptions(layers=2),
        TextOptions(map_name="short", dimensions=3),
        TextOptions(map_name="topics"),
    ],
)
async def test_a_server_gives_what_the_engine_gives(
    make_pair: MakePair, options: TextOptions
) -> None:
    """A server's client gives the vectors, counts and model description that the engine gives."""
    remote, local = make_pair()
    try:
        assert await remote.model(options) == await local.model(options)
        texts = [*TEXTS, "gamma " * 40]
        embedded, expected = await remote.embed(texts, options), await local.embed(texts, options)
        np.testing.assert_allclose(embedded.vectors, expected.vectors, atol=1e-6)
        assert (embedded.tokens, embedded.truncated) == (expected.tokens, expected.truncated)
    finally:
        await remote.close()


async def test_a_server_cuts_documents_as_the_engine_does(make_pair: MakePair) -> None:
    """Where tokens start, and vectors of chunks that saw their document, are the same of both."""
    remote, _ = make_pair(ServiceLimits(max_inputs=20))
    _, local = make_pair()
    try:
        starts = await remote.token_starts(TEXTS)
        assert starts == await local.token_starts(TEXTS)
        assert starts[3] == [0, 6, 11, 16, 21]
        spans = [[(0, 6), (3, len(text))] for text in TEXTS]
        found = await remote.embed(TEXTS, TextOptions(), spans)
        expected = await local.embed(TEXTS, TextOptions(), spans)
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)
        assert len(found.vectors) == 2 * len(TEXTS)
    finally:
        await remote.close()


async def test_a_servers_limits_are_kept(make_pair: MakePair) -> None:
    """Requests are halved until the server takes them; an error still names the right text."""
    remote, local = make_pair(ServiceLimits(max_inputs=7))
    try:
        embedded = await remote.embed(TEXTS, TextOptions())
        parts = [(await local.embed([text], TextOptions())).vectors for text in TEXTS]
        np.testing.assert_allclose(embedded.vectors, np.concatenate(parts), atol=1e-6)
        texts = [*TEXTS[:40], "gamma " * 40, *TEXTS[41:]]
        with pytest.raises(InputError) as caught:
            await remote.embed(texts, TextOptions(truncate=Truncation.ERROR))
        assert caught.value.input_index == 40
    finally:
        await remote.close()


async def test_a_busy_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server is asked again after the time that it names; a failure is an error that does not quote it."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    answers = [
        httpx.Response(429, headers={"retry-after": "7"}),
        httpx.Response(503),
        httpx.Response(200, json={"data": []}),
    ]
    remote = ServerEmbedder("http://server", key="k", model="", clock=lambda: sum(waits))
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answers.pop(0) if answers else httpx.Response(500, text="what the caller wrote")

    remote._server.http = httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="http://server"
    )
    with pytest.raises(SourceError, match="does not serve"):
        await remote.model(TextOptions())
    assert waits == [7, 0.25]
    with pytest.raises(SourceError, match="answered 500") as caught:
        await remote.embed(["alpha"], TextOptions())
    assert "caller" not in caught.value.message
    assert json.loads(seen[-1].content)["input"] == ["alpha"]
    assert seen[-1].headers["x-embed-priority"] == "bulk"
    await remote.close()


async def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be reached is an error after some tries."""

    async def sleep(_: float) -> None:
        """Return at once."""

    monkeypatch.setattr("asyncio.sleep", sleep)
    remote = ServerEmbedder("http://127.0.0.1:1", key="", model="")
    with pytest.raises(SourceError, match="cannot be reached"):
        await remote.model(TextOptions())
    await remote.close()
