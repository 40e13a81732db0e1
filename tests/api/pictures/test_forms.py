"""Pictures in the words of each vendor's API: what is embedded, what is counted, and what is refused."""

import base64
from typing import Any

import numpy as np
import orjson
from nestvec.api.batch.batch_lines import BatchLines
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import Priority

from tests.api.applications import line, unit_vector
from tests.api.pictures.conftest import PICTURE_TOKENS, STAND_IN, PictureApi
from tests.engine.pictures.hostile import SIZE, whole_files

FILES = whole_files()
PNG, JPEG, DEEP = FILES["png"], FILES["jpeg"], FILES["png 16 bit"]
BASE64 = base64.b64encode(PNG).decode()
URL = f"data:image/png;base64,{BASE64}"
JPEG_URL = "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()
PIXELS = SIZE[0] * SIZE[1]
GEMINI = "/v1beta/models/org/fake-model"


def text_part(text: str) -> dict[str, Any]:
    """Return a part of text."""
    return {"type": "text", "text": text}


def chat_part(url: str) -> dict[str, Any]:
    """Return a part of a picture, as OpenAI's chats have it."""
    return {"type": "image_url", "image_url": {"url": url}}


# Path, and a body of a picture behind a text, of which the vectors come as `data`.
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "jina": ("/v1/embeddings", {"input": [{"text": "alpha"}, {"image": URL}]}),
    "jina base64": ("/v1/embeddings", {"input": ["alpha", {"image": BASE64}]}),
    "jina url": ("/v1/embeddings", {"input": ["alpha", {"url": URL}]}),
    "jina bytes": ("/v1/embeddings", {"input": ["alpha", {"bytes": BASE64}]}),
    "jina truncated": (
        "/v1/embeddings",
        {"input": ["alpha", {"image": URL}], "truncate": True, "dimensions": 8},
    ),
    "openai parts": ("/v1/embeddings", {"input": [text_part("alpha"), chat_part(URL)]}),
    "openai bare url": (
        "/v1/embeddings",
        {"input": [text_part("alpha"), {"type": "image_url", "image_url": URL}]},
    ),
    "openai responses": (
        "/v1/embeddings",
        {
            "input": [
                {"type": "input_text", "text": "alpha"},
                {"type": "input_image", "image_url": URL},
            ]
        },
    ),
    "openrouter": (
        "/v1/embeddings",
        {"input": [{"content": [text_part("alpha")]}, {"content": [chat_part(URL)]}]},
    ),
    "azure": (
        "/openai/deployments/org/fake-model/embeddings",
        {"input": ["alpha", {"image": URL}], "normalize": True},
    ),
    "vllm pooling": ("/pooling", {"input": ["alpha", chat_part(URL)], "task": "embed"}),
    "voyage": (
        "/v1/multimodalembeddings",
        {
            "inputs": [
                {"content": [text_part("alpha")]},
                {"content": [{"type": "image_base64", "image_base64": URL}]},
            ],
            "input_type": None,
            "truncation": True,
        },
    ),
    "voyage url": (
        "/v1/multimodalembeddings",
        {
            "inputs": [
                {"content": [text_part("alpha")]},
                {"content": [{"type": "image_url", "image_url": URL}]},
            ]
        },
    ),
}


def check_call(pictures: PictureApi, *files: bytes) -> None:
    """Check that the last call had a text first, and then these pictures."""
    inputs = pictures.calls[-1].inputs
    assert list(inputs) == ["alpha", *map(Picture, files)]


def check_vectors(pictures: PictureApi, vectors: Any) -> None:
    """Check the vectors of a text and a picture."""
    expected = [unit_vector(pictures.api, text) for text in ("alpha", STAND_IN)]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


async def test_a_picture_behind_a_text(pictures: PictureApi) -> None:
    """Whatever its form, a picture's file reaches the engine as it was, and its vector stands in its place."""
    for path, body in BODIES.values():
        answer = await pictures.post(path, body)
        check_call(pictures, PNG)
        rows = answer["data"]
        check_vectors(pictures, [row.get("embedding", row.get("data")) for row in rows])
        assert answer["usage"]["total_tokens"] > PICTURE_TOKENS


async def test_a_lone_object(pictures: PictureApi) -> None:
    """An object in place of a list is one input; an error then names no index."""
    await pictures.post("/v1/embeddings", {"input": {"image": URL}})
    assert pictures.calls[-1].inputs == [Picture(PNG)]
    param, _ = await pictures.refusal("/v1/embeddings", {"input": {"image": "data:,"}})
    assert param == "input"


async def test_vllms_messages(pictures: PictureApi) -> None:
    """A chat of one message with one picture is that picture; with texts it needs a chat template."""
    message = {"role": "user", "content": [chat_part(URL)]}
    answer = await pictures.post("/v1/embeddings", {"messages": [message]})
    assert pictures.calls[-1].inputs == [Picture(PNG)]
    assert len(answer["data"]) == 1
    chats: list[list[Any]] = [
        [{"role": "user", "content": "alpha"}],
        [{"role": "user", "content": [text_part("alpha")]}],
        [],
        [7],
    ]
    for messages in chats:
        param, words = await pictures.refusal("/v1/embeddings", {"messages": messages})
        assert (param, "chat template" in words) == ("messages", True)
    both = [{"role": "user", "content": [chat_part(URL), text_part("alpha")]}]
    for messages in ([message, message], both):
        _, words = await pictures.refusal("/v1/embeddings", {"messages": messages})
        assert "one picture" in words


async def test_groups_make_one_vector_of_a_text_and_a_picture(pictures: PictureApi) -> None:
    """The way out that the error names: parts of chats are OpenAI's dialect, which has groups."""
    body = {"input": [text_part("alpha"), chat_part(URL)], "groups": [2]}
    answer = await pictures.post("/v1/embeddings", body)
    total = np.add(unit_vector(pictures.api, "alpha"), unit_vector(pictures.api, STAND_IN))
    np.testing.assert_allclose(
        answer["data"][0]["embedding"], total / np.linalg.norm(total), atol=1e-6
    )


async def test_coheres_images(pictures: PictureApi) -> None:
    """`images` and `inputs` are embedded, described in the answer and billed apart from texts."""
    described = {"width": 60, "height": 40, "bit_depth": 24}
    for path in ("/v1/embed", "/v2/embed"):
        body = {"images": [URL, JPEG_URL], "input_type": "image", "embedding_types": ["float"]}
        answer = await pictures.post(path, body)
        assert pictures.calls[-1].inputs == [Picture(PNG), Picture(JPEG)]
        assert answer["images"] == [
            {**described, "format": "png"},
            {**described, "format": "jpeg"},
        ]
        assert answer["texts"] == []
        assert answer["meta"]["billed_units"] == {
            "images": 2,
            "image_tokens": 2 * PICTURE_TOKENS,
            "input_tokens": 0,
        }
    inputs = [{"content": [text_part("alpha")]}, {"content": [chat_part(URL)]}]
    answer = await pictures.post("/v2/embed", {"inputs": inputs})
    check_call(pictures, PNG)
    check_vectors(pictures, answer["embeddings"]["float"])
    assert answer["texts"] == ["alpha"]
    assert answer["meta"]["billed_units"]["images"] == 1
    # Without pictures the answer is what it was.
    answer = await pictures.post("/v2/embed", {"texts": ["alpha"]})
    assert "images" not in answer
    assert list(answer["meta"]["billed_units"]) == ["input_tokens"]


async def test_voyages_usage(pictures: PictureApi) -> None:
    """Texts count by tokens, pictures by their pixels, and both by what was run."""
    path, body = BODIES["voyage"]
    usage = (await pictures.post(path, body))["usage"]
    assert usage["image_pixels"] == PIXELS
    assert usage["video_pixels"] == 0
    assert usage["total_tokens"] == usage["text_tokens"] + PICTURE_TOKENS
    assert usage["text_tokens"] > 0
    for field in ("output_encoding", "encoding_format"):
        answer = await pictures.post(path, {**body, field: "base64"})
        rows = [np.frombuffer(base64.b64decode(r["embedding"]), "<f4") for r in answer["data"]]
        check_vectors(pictures, rows)


async def test_geminis_inline_data(pictures: PictureApi) -> None:
    """Google's blobs are taken in both spellings and alphabets, alone and in batches beside texts."""
    plain, safe = base64.b64encode(DEEP).decode(), base64.urlsafe_b64encode(DEEP).decode()
    for blob in (
        {"inlineData": {"mimeType": "image/png", "data": safe}},
        {"inline_data": {"mime_type": "image/png", "data": plain}},
    ):
        content = {"parts": [blob]}
        answer = await pictures.post(f"{GEMINI}:embedContent", {"content": content})
        assert pictures.calls[-1].inputs == [Picture(DEEP)]
        assert answer["usageMetadata"]["totalTokenCount"] == PICTURE_TOKENS
        # Of another purpose each, so that they are two calls.
        requests = [
            {"content": content},
            {"content": {"parts": [{"text": "alpha"}]}, "taskType": "RETRIEVAL_QUERY"},
        ]
        answer = await pictures.post(f"{GEMINI}:batchEmbedContents", {"requests": requests})
        assert len(answer["embeddings"]) == 2
        np.testing.assert_allclose(
            answer["embeddings"][0]["values"], unit_vector(pictures.api, STAND_IN), atol=1e-6
        )


async def test_lines_of_batches(pictures: PictureApi) -> None:
    """A batch's lines hold pictures too; a line whose picture is broken fails alone."""
    lines = [
        line("both", ["alpha", {"image": URL}]),
        line("parts", [chat_part(URL)]),
        line("lone", {"image": BASE64}),
        line("broken", [{"image": "AAAA"}]),
        line("text", "alpha"),
    ]
    bodies = [orjson.loads(each)["body"] for each in lines]
    results = await BatchLines(pictures.api.app.state).answer(bodies, owner="")
    assert [result.status for result in results] == [200, 200, 200, 400, 200]
    assert b"no picture" in results[3].body
    assert all(call.priority is Priority.BULK for call in pictures.calls)
