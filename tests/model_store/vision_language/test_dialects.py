"""Texts and pictures in one input, in the words of each dialect, over HTTP; and over the engine's socket behind it."""

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.inputs import MADE, NAMES, expected, parts_of, url_of
from tests.model_store.vision_language.models import INPUTS
from tests.support.server import running_server

TOLERANCE = 1e-5
TEXT = "a red apple"
# An instruction, two texts and two pictures; and a picture before a text, as objects of Jina's kind have it.
TWO, BEFORE = "two", "before"


def post(server: TestClient, path: str, body: dict[str, Any]) -> Any:
    """POST a body, and return the answer's."""
    answer = server.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def check(rows: list[Any], *names: str) -> None:
    """Check the vectors of inputs by their names."""
    for row, name in zip(rows, names, strict=True):
        assert np.abs(np.asarray(row, np.float32) - expected(name)).max() < TOLERANCE, name


def inline(form: str) -> dict[str, Any]:
    """Return a form's picture as Google's clients send it."""
    data = base64.b64encode(FORMS[form]()).decode()
    return {"inlineData": {"mimeType": "image/png", "data": data}}


def test_openais_and_jinas_objects(server: TestClient) -> None:
    """Contents of parts, and objects of a text and a picture, beside texts and pictures alone."""
    url = url_of("png")
    body = {
        "input": [
            TEXT,
            {"content": parts_of("behind")},
            {"text": TEXT, "image": url},
            {"image": url_of("wide")},
        ],
        "model": "vl",
    }
    answer = post(server, "/v1/embeddings", body)
    check([row["embedding"] for row in answer["data"]], "text", "behind", BEFORE, "wide")
    counted = sum(MADE["tokens"][name] for name in ("text", "behind", BEFORE, "wide"))
    assert answer["usage"]["total_tokens"] == counted
    answer = post(
        server,
        "/v1/embeddings",
        {"input": {"content": parts_of(TWO)}, "instruction": INPUTS[TWO][0]},
    )
    check([row["embedding"] for row in answer["data"]], TWO)


def test_vllms_messages(server: TestClient) -> None:
    """A system's message says what is wanted, a user's holds texts and pictures; an empty answer may follow."""
    instruction, _ = INPUTS[TWO]
    system = {"role": "system", "content": [{"type": "text", "text": instruction}]}
    user = {"role": "user", "content": parts_of(TWO)}
    answer = {"role": "assistant", "content": [{"type": "text", "text": ""}]}
    for messages in ([system, user], [system, user, answer]):
        body = {"messages": messages, "continue_final_message": True, "add_special_tokens": True}
        check([row["embedding"] for row in post(server, "/v1/embeddings", body)["data"]], TWO)
    for path, key in (("/v1/embeddings", "embedding"), ("/pooling", "data")):
        texts = [{"role": "user", "content": TEXT}]
        check([row[key] for row in post(server, path, {"messages": texts})["data"]], "text")
    for wrong in ([user, user], [answer], [{**answer, "content": "yes"}, user], [7], []):
        refused = server.post("/v1/embeddings", json={"messages": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


def test_other_dialects(server: TestClient) -> None:
    """Cohere's and Voyage's contents, and Gemini's parts, with what each says of tokens and pictures."""
    contents = [{"content": parts_of("behind")}, {"content": [{"type": "text", "text": TEXT}]}]
    of_picture = 8 * 12 // 4
    total = MADE["tokens"]["behind"] + MADE["tokens"]["text"]
    answer = post(
        server, "/v2/embed", {"inputs": contents, "embedding_types": ["float"], "model": "vl"}
    )
    check(answer["embeddings"]["float"], "behind", "text")
    billed = answer["meta"]["billed_units"]
    assert billed == {"images": 1, "image_tokens": of_picture, "input_tokens": total - of_picture}
    answer = post(server, "/v1/multimodalembeddings", {"inputs": contents, "model": "vl"})
    check([row["embedding"] for row in answer["data"]], "behind", "text")
    assert answer["usage"]["text_tokens"] == total - of_picture
    content = {"parts": [inline("png"), {"text": TEXT}]}
    answer = post(server, "/v1beta/models/vl:embedContent", {"content": content})
    check([answer["embedding"]["values"]], BEFORE)
    requests = [{"content": content}, {"content": {"parts": [inline("wide")]}}]
    answer = post(server, "/v1beta/models/vl:batchEmbedContents", {"requests": requests})
    check([each["values"] for each in answer["embeddings"]], BEFORE, "wide")


def test_places_of_tokens(server: TestClient) -> None:
    """Token vectors of a text have its places, however many tokens of messages stand around it."""
    body = {"input": TEXT, "output_types": ["tokens"], "return_offsets": True}
    (row,) = post(server, "/v1/embeddings", body)["data"]
    places = [place for place in row["offsets"] if place is not None]
    assert len(row["offsets"]) == len(row["embeddings"]) == MADE["tokens"]["text"]
    assert places[-len(TEXT) :] == [[n, n + 1] for n in range(len(TEXT))]


def test_hostile_bodies(server: TestClient) -> None:
    """Too many parts, broken pictures beside good ones, and lines of pixels are 400, each with its place."""
    good = parts_of("behind")
    cut = base64.b64encode(FORMS["png"]()[:90]).decode()
    broken = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{cut}"}}
    for content in (
        [*good, *good * 600],
        [*good, broken],
        [*good, {"type": "video_url"}],
        parts_of("wide") * 20,
    ):
        refused = server.post("/v1/embeddings", json={"input": [TEXT, {"content": content}]})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "input[1]"
    for body, param in (
        ({"input": [{"text": 7, "image": url_of("png")}]}, "input[0]"),
        ({"input": [TEXT], "examples": [{"query": "a", "response": "b"}]}, "examples"),
    ):
        refused = server.post("/v1/embeddings", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


@pytest.mark.process
@pytest.mark.load
def test_an_engine_process_behind_its_socket(model_folder: Path, tmp_path: Path) -> None:
    """Inputs of several pictures each, of other sizes, cross the socket as they are."""
    inputs = [{"content": parts_of(name)} for name in NAMES if INPUTS[name][0] != INPUTS[TWO][0]]
    names = [name for name in NAMES if INPUTS[name][0] != INPUTS[TWO][0]]
    with running_server(
        tmp_path,
        model=model_folder / "model",
        cache_dir=model_folder / "cache",
        http_processes=1,
    ) as running:
        answer = httpx.post(f"{running.url}/v1/embeddings", json={"input": inputs}, timeout=60)
        check([row["embedding"] for row in answer.json()["data"]], *names)
        body = {"input": {"content": parts_of(TWO)}, "instruction": INPUTS[TWO][0]}
        answer = httpx.post(f"{running.url}/v1/embeddings", json=body, timeout=60)
        check([answer.json()["data"][0]["embedding"]], TWO)
