"""`/v1/classify` of pictures: by labels in the request and of a map, at the scale that the model learned."""

import base64
import dataclasses
from typing import Any

import numpy as np
from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import Float64Array
from nestvec.engine.vectors.label_calibration import PLAIN_TEMPERATURE
from nestvec.engine.vectors.label_scale import LabelScale

from tests.api.applications import unit_vector
from tests.api.pictures.conftest import PICTURE_TOKENS, STAND_IN, MakePictureApi, PictureApi
from tests.api.pictures.test_forms import BASE64, JPEG_URL, PIXELS, PNG, URL, chat_part, text_part
from tests.support.labelled_maps import LABELS, concept_map, label_calibration

PATH = "/v1/classify"
CHOICES = ["red", "blue gamma", "one"]
CLIP, SIGLIP = LabelScale(100.0), LabelScale(40.0, -3.5)
MAPS = (concept_map(), concept_map("learned", label_calibration()))


def scores(answer: Any) -> Float64Array:
    """Return the probabilities of an answer, (B, K)."""
    return np.array([[each["score"] for each in row["predictions"]] for row in answer["data"]])


def cosines(pictures: PictureApi, texts: list[str], template: str = "{}") -> Float64Array:
    """Return the cosines of texts with the labels in a template."""
    rows, anchors = (
        np.array([unit_vector(pictures.api, text) for text in each], np.float64)
        for each in (texts, [template.replace("{}", label) for label in CHOICES])
    )
    return np.asarray(rows @ anchors.T)


def softmax(logits: Float64Array) -> Float64Array:
    """Return probabilities by the plain formula."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


async def test_pictures_have_the_scale_that_the_model_learned(
    make_picture_api: MakePictureApi,
) -> None:
    """As `logits_per_image` of transformers' classes; texts beside them keep theirs, as nobody taught it."""
    template = "one {} two"
    body = {
        "input": [{"image": URL}, "alpha beta", {"text": "one"}, chat_part(JPEG_URL)],
        "labels": CHOICES,
        "template": template,
    }
    plain = 1 / PLAIN_TEMPERATURE
    for scale, factor in ((CLIP, 100), (SIGLIP, 40), (None, plain)):
        api = make_picture_api(spec_fields={"label_scale": scale})
        answer = await api.post(PATH, body)
        rows = cosines(api, [STAND_IN, "alpha beta", "one", STAND_IN], template)
        expected = softmax(rows * np.array([[factor], [plain], [plain], [factor]]))
        np.testing.assert_allclose(scores(answer), expected, atol=2e-5)
        assert answer["calibrated"] is False
        assert [len(call.inputs) for call in api.calls] == [3, 4]
        assert api.calls[1].inputs[0] == Picture(PNG)
        tokens = answer["usage"]["total_tokens"]
        assert tokens == 2 * PICTURE_TOKENS + 4 + 3 + 5 + 6 + 5


async def test_every_form_of_jinas_inputs(pictures: PictureApi) -> None:
    """A picture is what it is in `/v1/embeddings`: under Jina's words, and in OpenAI's parts."""
    forms: list[Any] = [{"image": URL}, {"image": BASE64}, {"url": URL}, {"bytes": BASE64}]
    forms += [
        chat_part(URL),
        {"content": [chat_part(URL)]},
        {"type": "input_image", "image_url": URL},
    ]
    answer = await pictures.post(PATH, {"input": forms, "labels": CHOICES})
    assert pictures.calls[-1].inputs == [Picture(PNG)] * len(forms)
    assert len({row["score"] for row in answer["data"]}) == 1


async def test_labels_of_a_sigmoid_go_together(make_picture_api: MakePictureApi) -> None:
    """SigLIP's kind tells each label by itself; CLIP's does not, and nothing does of texts."""
    body = {"input": [{"image": URL}], "labels": CHOICES, "multi_label": True}
    siglip = make_picture_api(spec_fields={"label_scale": SIGLIP})
    answer = await siglip.post(PATH, body)
    expected = 1 / (1 + np.exp(-(40 * cosines(siglip, [STAND_IN]) - 3.5)))
    np.testing.assert_allclose(scores(answer), expected, atol=2e-5)
    likely = [label for label, value in zip(CHOICES, expected[0], strict=True) if value >= 0.5]
    assert answer["data"][0]["labels"] == likely
    clip = make_picture_api(spec_fields={"label_scale": CLIP})
    for api, inputs in ((clip, [{"image": URL}]), (siglip, [{"image": URL}, "alpha"])):
        param, message = await api.refusal(PATH, {**body, "input": inputs})
        assert (param, "SigLIP" in message) == ("multi_label", True)
    _, message = await siglip.refusal(PATH, {**body, "input": ["alpha"]})
    assert "SigLIP" not in message
    param, _ = await siglip.refusal(PATH, {**body, "multi_label": None, "alpha": 0.1})
    assert param == "alpha"


async def test_a_map_that_texts_taught(make_picture_api: MakePictureApi) -> None:
    """Its labels are pictures' too; what texts taught of probabilities is not."""
    api = make_picture_api(spec_fields={"label_scale": CLIP}, maps=MAPS)
    for name, of_texts in (("topics", PLAIN_TEMPERATURE), ("learned", 0.5)):
        answer = await api.post(PATH, {"input": [{"image": URL}, "alpha"], "map": name})
        rows = np.array([unit_vector(api.api, each) for each in (STAND_IN, "alpha")], np.float64)
        expected = softmax(rows @ MAPS[0].weight / np.array([[0.01], [of_texts]]))
        np.testing.assert_allclose(scores(answer), expected, atol=2e-5)
        assert answer["calibrated"] is False
        assert [each["label"] for each in answer["data"][0]["predictions"]] == list(LABELS)
        for field, value in (("alpha", 0.1), ("multi_label", True)):
            asked = {"input": [{"image": URL}], "map": name, field: value}
            assert (await api.refusal(PATH, asked))[0] == field
    texts = await api.post(PATH, {"input": ["alpha"], "map": "learned", "alpha": 0.1})
    assert texts["calibrated"] is True


async def test_a_map_that_pictures_taught(make_picture_api: MakePictureApi) -> None:
    """It has sets and several labels of pictures, and of texts neither; anchors of pictures cross with texts."""
    learned = dataclasses.replace(label_calibration(), is_of_pictures=True)
    taught = concept_map("taught", learned)
    drawn = dataclasses.replace(concept_map("drawn"), has_picture_anchors=True, template="")
    api = make_picture_api(spec_fields={"label_scale": CLIP}, maps=(taught, drawn))
    rows = np.array([unit_vector(api.api, each) for each in (STAND_IN, "alpha")], np.float64)
    cosines_of = rows @ taught.weight
    item = {"image": URL}
    for field, value in (("alpha", 0.1), ("multi_label", True)):
        body = {"input": [item], "map": "taught", field: value}
        answer = await api.post(PATH, body)
        assert answer["calibrated"] is True
        for inputs in (["alpha"], [item, "alpha"]):
            param, message = await api.refusal(PATH, {**body, "input": inputs})
            assert (param, "on pictures the map was calibrated" in message) == (field, True)
    answer = await api.post(PATH, {"input": [item, "alpha"], "map": "taught"})
    expected = softmax(cosines_of / np.array([[0.5], [PLAIN_TEMPERATURE]]))
    np.testing.assert_allclose(scores(answer), expected, atol=2e-5)
    assert answer["calibrated"] is False
    answer = await api.post(PATH, {"input": [item, "alpha"], "map": "drawn"})
    expected = softmax(cosines_of / np.array([[PLAIN_TEMPERATURE], [0.01]]))
    np.testing.assert_allclose(scores(answer), expected, atol=2e-5)
    told = (await api.api.client.get("/v1/models/org/fake-model")).json()["maps"]
    by_name = {each["name"]: each for each in told}
    assert by_name["taught"]["calibrated_on"] == by_name["drawn"]["anchors"] == "pictures"
    assert "anchors" not in by_name["taught"]


# What is an item of `input`, and words of why it is refused.
NO_PICTURES: list[tuple[Any, str]] = [
    ({"image": "https://example.com/cat.png"}, "not fetched"),
    ({"image": "AAAA"}, "no picture"),
    ({"image": 7}, "data URL"),
    ({"image": URL, "text": "a"}, "inputs of their own"),
    ({"content": [text_part("a"), chat_part(URL)]}, "inputs of their own"),
    ({"type": "video_url", "video_url": URL}, "only texts and pictures"),
    ({"x": 1}, "'text' or 'image'"),
    (7, "'text' or 'image'"),
]


async def test_what_is_no_picture(pictures: PictureApi) -> None:
    """It is refused where it stands, before anything runs."""
    for item, words in NO_PICTURES:
        body = {"input": [{"text": "a"}, item], "labels": CHOICES}
        param, message = await pictures.refusal(PATH, body)
        assert (param, words in message) == ("input[1]", True), message
    assert not pictures.calls


async def test_bounds_of_pictures(make_picture_api: MakePictureApi) -> None:
    """Numbers, bytes, pixels and memory for bodies are bounded as on `/v1/embeddings`."""
    bounds = PictureBounds(max_bytes=len(PNG), max_pictures=2, max_call_pixels=2 * PIXELS - 1)
    api = make_picture_api(bounds)
    item, longer = {"image": URL}, {"image": base64.b64encode(PNG + b"a").decode()}
    for inputs, words in (([item] * 3, "at most 2"), ([item] * 2, "pixels"), ([longer], "bytes")):
        _, message = await api.refusal(PATH, {"input": inputs, "labels": CHOICES})
        assert words in message
    assert not api.calls
    small = make_picture_api(max_in_flight_bytes=200_000)
    padded = {"image": base64.b64encode(PNG + bytes(90_000)).decode()}
    body = {"input": [padded], "labels": CHOICES}
    assert (await small.api.client.post(PATH, json=body)).status_code == 429
    assert small.api.app.state.body_memory.held_bytes == 0


async def test_a_classifier_of_texts_takes_none(make_picture_api: MakePictureApi) -> None:
    """Without labels a classifier's own would be chosen from, and there is none of pictures."""
    api = make_picture_api()
    param, message = await api.refusal(PATH, {"input": [{"image": URL}]})
    assert (param, "no classifier" in message) == ("labels", True)


def test_a_scale_is_of_cosines() -> None:
    """Its temperature is the reciprocal of the factor."""
    assert dataclasses.replace(CLIP, factor=50.0).temperature == 0.02
