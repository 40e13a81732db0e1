"""No picture, and no text beside one, leaves a server except in answers: neither in logs nor in errors or metrics."""

import base64
import logging
from typing import Any

import pytest

from tests.api.pictures.conftest import PictureApi
from tests.api.pictures.test_forms import GEMINI, PNG, URL, chat_part, text_part

CANARY = "kanarienvogel"
BROKEN = PNG[:120] + CANARY.encode() * 4 + PNG[200:]
# As a picture's base64 would be quoted: from its beginning, its end, or with bytes of the file.
PIECES = [
    *(
        base64.b64encode(data).decode()[start : start + 24]
        for data in (PNG, BROKEN)
        for start in (0, 80)
    ),
    CANARY,
    repr(PNG[:12])[2:-1],
]


def bodies(picture: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a request of every route that takes pictures, with a text beside each."""
    item, documents = {"image": picture}, [CANARY, {"image": picture}]
    inline = {"inlineData": {"mimeType": "image/png", "data": picture}}
    content = {"content": [{"type": "image_base64", "image_base64": picture}]}
    return [
        ("/v1/embeddings", {"input": documents}),
        ("/v1/embeddings", {"input": [text_part(CANARY), chat_part(picture)]}),
        (
            "/v1/classify",
            {"input": documents, "labels": [CANARY, "b"], "template": f"{CANARY} {{}}"},
        ),
        ("/v1/similarity", {"left": documents, "right": item}),
        ("/v1/similarity", {"pairs": [documents]}),
        ("/v1/rescore", {"query": item, "documents": documents}),
        ("/v1/rerank", {"query": item, "documents": documents}),
        ("/v2/rerank", {"query": CANARY, "documents": documents}),
        ("/score", {"queries": CANARY, "documents": documents}),
        ("/v2/embed", {"images": [picture]}),
        ("/v1/multimodalembeddings", {"inputs": [{"content": [text_part(CANARY)]}, content]}),
        (f"{GEMINI}:embedContent", {"content": {"parts": [inline]}}),
    ]


async def test_no_picture_is_told(
    pictures: PictureApi, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """At the most talkative level, of pictures that are embedded, broken ones, and what is none."""
    caplog.set_level(logging.DEBUG)
    sent = [URL, base64.b64encode(BROKEN).decode(), CANARY * 9, f"https://{CANARY}.example/a.png"]
    statuses = set()
    for picture in sent:
        for path, body in bodies(picture):
            answer = await pictures.api.client.post(path, json=body)
            statuses.add(answer.status_code)
            if answer.status_code == 400:
                assert not [piece for piece in PIECES if piece in answer.text], (path, answer.text)
    assert statuses == {200, 400}
    metrics = (await pictures.api.client.get("/metrics")).text
    told = "".join((*capfd.readouterr(), caplog.text, metrics))
    assert "/v1/classify" in told
    assert not [piece for piece in PIECES if piece in told]
