"""Pictures by unmodified client SDKs, against a server of a tiny model of two towers."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.end_to_end.clients.test_sdks import KEY, run_python
from tests.model_store.two_towers.towers import write_model
from tests.support.server import RunningServer, running_server

pytestmark = [pytest.mark.clients, pytest.mark.process, pytest.mark.load]
SIZE = (70, 50)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("pictures")
    model = write_model(folder / "clip", "clip")
    with running_server(
        folder,
        model=model,
        served_model_name="clip",
        cache_dir=folder / "cache",
        api_keys=KEY,
    ) as running:
        yield running


def test_pictures_by_every_client(server: RunningServer) -> None:
    """voyageai, cohere, google-genai and openai send pictures as they do to their vendors, and get the same vectors."""
    printed = run_python("picture_clients.py", server)
    answer = httpx.post(
        f"{server.url}/v1/embeddings",
        json={"input": [printed["text"], {"image": printed["picture"]}], "model": "clip"},
        headers={"authorization": f"Bearer {KEY}"},
    )
    rows = answer.json()["data"]
    text, picture = (np.asarray(row["embedding"], np.float32) for row in rows)
    for name in ("voyage", "cohere_inputs", "gemini", "openai", "jina"):
        np.testing.assert_allclose(printed[name], [text, picture], atol=1e-5, err_msg=name)
    for name in ("cohere", "messages"):
        np.testing.assert_allclose(printed[name], [picture], atol=1e-5, err_msg=name)
    for name, of_query in (("rerank", picture), ("cohere_rerank", text)):
        scores = [float(of_query @ document) for document in (text, picture, text)]
        expected = sorted(enumerate(scores), key=lambda each: -each[1])
        np.testing.assert_allclose(dict(printed[name])[1], scores[1], atol=1e-5, err_msg=name)
        assert [index for index, _ in printed[name]] == [index for index, _ in expected], name
    assert {row["label"] for row in printed["labels"][0]["predictions"]} == {"red", "blue"}
    assert len(printed["voyage_small"][0]) == 8
    assert len(printed["cohere_bits"][0]) == len(picture) // 8
    assert printed["cohere_images"] == [[*SIZE, "png", 24]]
    assert printed["cohere_billed"] == 1
    text_tokens, pixels, tokens = printed["voyage_usage"]
    assert pixels == SIZE[0] * SIZE[1]
    assert tokens > text_tokens > 0
    assert printed["failures"] == {
        "voyage": "InvalidRequestError",
        "cohere": "BadRequestError",
        "openai": "BadRequestError",
    }
