"""Pictures that are none, are elsewhere, or are too much: 400 with the place and the reason, and nothing is fetched."""

import base64
from typing import Any

import pytest
from nestvec.engine.pictures import decoding
from nestvec.engine.pictures.decoding import PictureBounds

from tests.api.applications import Api
from tests.api.pictures.conftest import MakePictureApi, PictureApi
from tests.api.pictures.test_forms import BASE64, GEMINI, PNG, URL, chat_part, text_part
from tests.engine.pictures.hostile import HOSTILE, SIZE

VOYAGE = "/v1/multimodalembeddings"
PIXELS = SIZE[0] * SIZE[1]


def voyage(*parts: Any) -> dict[str, Any]:
    """Return Voyage's body of one input behind a text."""
    return {"inputs": [{"content": [text_part("alpha")]}, {"content": list(parts)}]}


# What stands where a picture should, and words of the reason.
NO_PICTURES = [
    ("https://example.com/cat.png", "not fetched"),
    ("HTTP://127.0.0.1:6379/", "not fetched"),
    ("file:///etc/passwd", "not fetched"),
    ("gs://bucket/cat.png", "not fetched"),
    ("blob:null/6", "not fetched"),
    ("data:image/png,rawbytes", "data:image"),
    ("data:image/png;base64", "data:image"),
    ("data:", "data:image"),
    ("data:,", "data:image"),
    ("data:text/html;base64,AAAA", "media type"),
    ("data:application/pdf;base64,AAAA", "media type"),
    ("data:video/mp4;base64,AAAA", "media type"),
    ("data:image/png;base64,", "empty"),
    ("data:image/png;base64,AAAA", "no picture"),
    ("data:image/png;base64,!!!!", "no base64"),
    ("AAAAA", "no base64"),
    ("AA=A", "no base64"),
    ("\u6f22\u5b57", "no base64"),
    ("", "empty"),
    ("a cat.", "no base64"),
    ("====", "empty"),
]


async def test_what_is_no_picture(pictures: PictureApi) -> None:
    """Every dialect says what is wrong with what stands in a picture's place, and where, without quoting it."""
    for value, reason in NO_PICTURES:
        asked: list[tuple[str, Any, str]] = [
            ("/v1/embeddings", {"input": ["alpha", {"image": value}]}, "input[1]"),
            ("/v1/embeddings", {"input": [text_part("alpha"), chat_part(value)]}, "input[1]"),
            ("/v2/embed", {"images": [URL, value]}, "images[1]"),
            (VOYAGE, voyage({"type": "image_base64", "image_base64": value}), "inputs[1]"),
        ]
        for path, body, place in asked:
            param, message = await pictures.refusal(path, body)
            assert param == place, (value, message)
            assert reason in message, value
            assert len(value) < 6 or value not in message
        part = {"inlineData": {"mimeType": "image/png", "data": value}}
        contents = [{"parts": [{"text": "a"}]}, {"parts": [part]}]
        batch = {"requests": [{"content": content} for content in contents]}
        answer = await pictures.api.client.post(f"{GEMINI}:batchEmbedContents", json=batch)
        error = answer.json()["error"]
        assert (answer.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
        assert reason in error["message"], value
    assert not pictures.calls


async def test_hostile_files_are_the_callers_error(pictures: PictureApi) -> None:
    """A hostile file is refused by what it declares; if not, the engine is to refuse its pixels."""
    for name, (make, reason) in HOSTILE.items():
        encoded = base64.b64encode(make()).decode()
        answer = await pictures.api.embed({"input": [{"image": encoded}]})
        if answer.status_code == 200:
            assert reason == "damaged", name
            continue
        assert answer.status_code == 400, name
        assert reason in answer.json()["error"]["message"]


async def test_one_vector_of_both(pictures: PictureApi) -> None:
    """A picture and more in one input is refused with the way out: two towers make no vector of both."""
    both = [text_part("a"), chat_part(URL)]
    for path, body, place in (
        ("/v1/embeddings", {"input": [{"text": "a", "image": URL}]}, "input[0]"),
        ("/v1/embeddings", {"input": [{"content": both}]}, "input[0]"),
        ("/v1/embeddings", {"input": [{"content": [chat_part(URL)] * 2}]}, "input[0]"),
        (VOYAGE, voyage(*both), "inputs[1]"),
        ("/v2/embed", {"inputs": [{"content": both[::-1]}]}, "inputs[0]"),
    ):
        param, message = await pictures.refusal(path, body)
        assert (param, "inputs of their own" in message) == (place, True)


async def test_geminis_other_parts(pictures: PictureApi) -> None:
    """Files that lie elsewhere, other media and mixed parts are refused with the part's place."""
    picture = {"inlineData": {"mimeType": "image/png", "data": BASE64}}
    elsewhere = {"fileData": {"fileUri": "gs://bucket/cat.png", "mimeType": "image/png"}}
    sound = {"inlineData": {"mimeType": "audio/wav", "data": BASE64}}
    for parts, words in (
        ([elsewhere], "not fetched"),
        ([sound], "only texts and pictures"),
        ([picture, {"text": "a"}], "inputs of their own"),
        ([{"text": "a"}, picture], "inputs of their own"),
        ([{"inlineData": {}}], "base64"),
        ([{"inlineData": "a"}], "base64"),
    ):
        body: dict[str, Any] = {"content": {"parts": parts}}
        answer = await pictures.api.client.post(f"{GEMINI}:embedContent", json=body)
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (400, True)


OTHER_PARTS: list[dict[str, Any]] = [
    {"type": "video_url", "video_url": URL},
    {"type": "input_audio", "input_audio": {"data": "AAAA"}},
    {"type": "file", "file": {}},
    {"type": 7},
    {"type": None, "image_url": 7},
    {"type": "image_url"},
    {"type": "image_url", "image_url": {"url": None}},
    {"type": "input_image", "file_id": "file-1"},
    {"type": "text", "text": None},
    {"image": 7},
    {"image": None},
    {},
]


async def test_parts_of_other_kinds(pictures: PictureApi) -> None:
    """Videos, sounds, files and parts without anything in them are refused where they stand."""
    for part in OTHER_PARTS:
        for path, body, place in (
            ("/v1/embeddings", {"input": [text_part("a"), part]}, "input[1]"),
            (VOYAGE, voyage(part), "inputs[1]"),
            ("/v2/embed", {"inputs": [{"content": [part]}]}, "inputs[0]"),
        ):
            param, message = await pictures.refusal(path, body)
            assert param == place, (part, message)


async def test_bounds_of_a_request(make_picture_api: MakePictureApi) -> None:
    """Pictures are counted, and their bytes and pixels, before the engine is asked; texts beside them are not."""
    bounds = PictureBounds(
        max_bytes=len(PNG), max_pixels=PIXELS, max_pictures=3, max_call_pixels=2 * PIXELS
    )
    api = make_picture_api(bounds)
    item = {"image": URL}
    await api.post("/v1/embeddings", {"input": [item, item, *["alpha"] * 20]})
    _, message = await api.refusal("/v1/embeddings", {"input": [item] * 4})
    assert "at most 3 pictures" in message
    param, message = await api.refusal("/v1/embeddings", {"input": ["a", *[item] * 3]})
    assert (param, f"{3 * PIXELS} pixels, max {2 * PIXELS}" in message) == ("input[3]", True)
    longer = {"image": base64.b64encode(PNG + b"a").decode()}
    _, message = await api.refusal("/v1/embeddings", {"input": [longer]})
    assert f"{len(PNG) + 1} bytes, max {len(PNG)}" in message
    smaller = make_picture_api(PictureBounds(max_pixels=PIXELS - 1))
    _, message = await smaller.refusal("/v1/embeddings", {"input": [item]})
    assert f"60 x 40 pixels, max {PIXELS - 1}" in message


async def test_the_settings_are_the_bounds(make_picture_api: MakePictureApi) -> None:
    """A body of pictures counts with its files against the memory for bodies."""
    api = make_picture_api(max_in_flight_bytes=200_000)
    item = {"image": base64.b64encode(PNG + bytes(90_000)).decode()}
    answer = await api.api.embed({"input": [item]})
    assert answer.status_code == 429
    assert api.api.app.state.body_memory.held_bytes == 0


async def test_a_model_of_texts_refuses_pictures_at_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model takes no pictures, that is the answer, whatever the picture is and whether there is Pillow."""
    monkeypatch.setattr(decoding, "has_pillow", lambda: False)
    for item in ({"image": URL}, {"image": "https://a"}, chat_part("AAAA")):
        error = (await api.embed({"input": ["a", item]})).json()["error"]
        assert (error["param"], error["code"]) == ("input[1]", "unsupported")
        assert "multimodal" in error["message"]


async def test_without_pillow_the_extra_is_named(
    pictures: PictureApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of pictures on a server without Pillow names the extra."""
    monkeypatch.setattr(decoding, "has_pillow", lambda: False)
    _, message = await pictures.refusal("/v1/embeddings", {"input": [{"image": URL}]})
    assert "images" in message


async def test_base64_of_any_lay_out(pictures: PictureApi) -> None:
    """Lines, blanks, the URL-safe alphabet, no padding and parameters of the media type change nothing."""
    lines = base64.encodebytes(PNG).decode()
    forms = [
        lines,
        "\n" + lines.replace("\n", "\r\n"),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        f"data:image/PNG;charset=utf-8;base64,{BASE64}",
        f"DATA:;base64,{BASE64}",
        f"data:;base64, {BASE64}",
        f"data:application/octet-stream;base64,{BASE64}",
        # The bytes decide.
        f"data:image/jpeg;base64,{BASE64}",
    ]
    await pictures.post("/v1/embeddings", {"input": [{"image": form} for form in forms]})
    assert [value.data for value in pictures.calls[-1].inputs] == [PNG] * len(forms)  # type: ignore[union-attr]  # all are pictures
