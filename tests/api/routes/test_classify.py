"""`/v1/classify`: labels in the request, of a map and of a classifier; probabilities, and sets at a chosen error."""

import dataclasses
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from nestvec.api.batch.batch_lines import BatchLines
from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import VALUE_BYTES
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.types import Float64Array, OutputKind
from nestvec.engine.vectors.label_calibration import PLAIN_TEMPERATURE

from tests.api.applications import Api, MakeApi, unit_vector
from tests.engine.front.test_vector_plan import random_map
from tests.support.fakes import HIDDEN
from tests.support.labelled_maps import LABELS, concept_map, label_calibration
from tests.support.served import SPEC, ServedOptions

URL = "/v1/classify"
TEXTS = ["alpha beta", "one two three", "red"]
CHOICES = ["alpha", "beta gamma", "three"]
LEARNED = label_calibration()
MAPS = (
    concept_map(),
    concept_map("learned", LEARNED),
    concept_map("several", label_calibration(temperature=None)),
    random_map("short", width=4),
)
OPTIONS = ServedOptions(maps=MAPS)


def softmax(cosines: Float64Array, temperature: float) -> Float64Array:
    """Return probabilities by the plain formula."""
    raised = np.exp(cosines / temperature)
    values: Float64Array = raised / raised.sum(axis=1, keepdims=True)
    return values


def scores_of(answer: httpx.Response) -> Float64Array:
    """Return the probabilities of an answer, `[B, K]`, and check that its rows have Jina's form."""
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    for index, row in enumerate(rows):
        assert (row["object"], row["index"]) == ("classification", index)
        best = max(row["predictions"], key=lambda each: float(each["score"]))
        assert (row["prediction"], row["score"]) == (best["label"], best["score"])
    return np.array([[each["score"] for each in row["predictions"]] for row in rows])


def units(api: Api, texts: list[str]) -> Float64Array:
    """Return the vectors of texts."""
    return np.array([unit_vector(api, text) for text in texts], np.float64)


async def test_labels_in_the_request(api: Api) -> None:
    """Probabilities are a softmax of cosines with the labels in the template, and say that nobody calibrated them."""
    body = {"input": TEXTS, "labels": CHOICES, "template": "one {} two"}
    answer = await api.client.post(URL, json=body)
    anchors = units(api, [f"one {label} two" for label in CHOICES])
    expected = softmax(units(api, TEXTS) @ anchors.T, PLAIN_TEMPERATURE)
    np.testing.assert_allclose(scores_of(answer), expected, atol=1e-5)
    content = answer.json()
    assert [each["label"] for each in content["data"][0]["predictions"]] == CHOICES
    assert (content["calibrated"], content["model"]) == (False, SPEC.name)
    assert content["usage"] == dict.fromkeys(
        ("total_tokens", "prompt_tokens"), 4 + 5 + 3 + 5 + 6 + 5
    )
    assert answer.headers["x-embed-space"] == SPEC.space
    assert set(content["data"][0]) == {"object", "index", "prediction", "score", "predictions"}


async def test_as_jinas_clients_send_it(api: Api) -> None:
    """A single text, objects with `text`, labels that repeat and fields of Jina's that change nothing are taken."""
    plain = await api.client.post(URL, json={"input": ["alpha"], "labels": CHOICES})
    assert scores_of(plain)[0].argmax() == 0
    for body in (
        {"input": "alpha", "labels": CHOICES},
        {"input": [{"text": "alpha"}], "labels": [*CHOICES, *CHOICES], "action": "list"},
        {"input": ["alpha"], "labels": CHOICES, "template": "", "map": None, "alpha": ""},
    ):
        answer = await api.client.post(URL, json={"model": SPEC.name, **body})
        assert answer.json()["data"] == plain.json()["data"]


async def test_labels_are_cached_as_any_text(make_api: MakeApi) -> None:
    """A second request with the same labels runs its own texts only."""
    api = make_api(ServedOptions(cache=VectorCache(2**20)))
    for text in ("red", "blue"):
        await api.client.post(URL, json={"input": text, "labels": CHOICES})
    assert sum(map(len, api.served.backend.batches)) == len(CHOICES) + 2


async def test_a_map_has_labels(make_api: MakeApi) -> None:
    """A map's values are cosines, as `/v1/embeddings` gives them raw; without a calibration the answer says so."""
    api = make_api(OPTIONS)
    answer = await api.client.post(URL, json={"input": TEXTS, "map": "topics"})
    raw = (await api.embed({"input": TEXTS, "map": "topics", "normalize": False})).json()
    cosines = np.array([row["embedding"] for row in raw["data"]])
    np.testing.assert_allclose(cosines, units(api, TEXTS) @ MAPS[0].weight, atol=1e-6)
    np.testing.assert_allclose(scores_of(answer), softmax(cosines, PLAIN_TEMPERATURE), atol=1e-6)
    assert raw["labels"] == list(LABELS)
    assert [each["label"] for each in answer.json()["data"][0]["predictions"]] == list(LABELS)
    assert answer.json()["calibrated"] is False
    assert (answer.headers["x-embed-map"], answer.headers["x-embed-space"]) == (
        "topics",
        MAPS[0].space,
    )
    by_space = await api.client.post(URL, json={"input": TEXTS, "map": MAPS[0].space})
    assert by_space.json()["data"] == answer.json()["data"]


async def test_sets_at_any_error(make_api: MakeApi) -> None:
    """A set holds the labels whose score is at most the one that the theory names; it may be empty."""
    api = make_api(OPTIONS)
    raw = (await api.embed({"input": TEXTS, "map": "learned", "normalize": False})).json()
    cosines = np.array([row["embedding"] for row in raw["data"]])
    sizes = []
    for alpha in (0.02, 0.1, 0.5, 0.9):
        answer = await api.client.post(URL, json={"input": TEXTS, "map": "learned", "alpha": alpha})
        values = scores_of(answer)
        np.testing.assert_allclose(values, softmax(cosines, 0.5), atol=1e-6)
        threshold = LEARNED.scores[int(np.ceil(61 * (1 - alpha) - 1e-9)) - 1]
        expected = [
            [label for label, value in zip(LABELS, row, strict=True) if 1 - value <= threshold]
            for row in values
        ]
        assert [row["prediction_set"] for row in answer.json()["data"]] == expected
        assert answer.json()["calibrated"] is True
        sizes.append(sum(map(len, expected)))
    assert sizes[0] > sizes[-1] == 0


async def test_several_labels_may_apply(make_api: MakeApi) -> None:
    """Each label has a sigmoid and a threshold of its own; also where texts had several labels."""
    api = make_api(OPTIONS)
    raw = (await api.embed({"input": TEXTS, "map": "learned", "normalize": False})).json()
    logits = np.array([row["embedding"] for row in raw["data"]]) * LEARNED.sigmoids[:, 0]
    expected = 1 / (1 + np.exp(-(logits + LEARNED.sigmoids[:, 1])))
    for name in ("learned", "several"):
        body = {"input": TEXTS, "map": name, "multi_label": True}
        answer = await api.client.post(URL, json=body)
        values = scores_of(answer)
        np.testing.assert_allclose(values, expected, atol=1e-6)
        given = [
            [label for label, is_given in zip(LABELS, row, strict=True) if is_given]
            for row in values >= LEARNED.thresholds
        ]
        assert [row["labels"] for row in answer.json()["data"]] == given
        assert answer.json()["calibrated"] is True
    # Of a choice of one label the texts of several say nothing.
    single = await api.client.post(URL, json={"input": TEXTS, "map": "several"})
    assert single.json()["calibrated"] is False


async def test_a_classifier_has_labels_of_its_own(make_api: MakeApi) -> None:
    """Without labels or map a classifier answers as `/classify` does, in Jina's form."""
    names = tuple("abcdefgh")
    spec = dataclasses.replace(SPEC, kinds=(OutputKind.LABELS,), labels=names, activation="softmax")
    api = make_api(ServedOptions(spec=spec))
    answer = await api.client.post(URL, json={"input": TEXTS})
    theirs = (await api.client.post("/classify", json={"input": TEXTS})).json()["data"]
    np.testing.assert_allclose(scores_of(answer), [row["probs"] for row in theirs], atol=1e-9)
    assert [row["prediction"] for row in answer.json()["data"]] == [row["label"] for row in theirs]
    several = await api.client.post(URL, json={"input": TEXTS, "multi_label": True})
    for row, values in zip(several.json()["data"], scores_of(several), strict=True):
        likely = [label for label, value in zip(names, values, strict=True) if value >= 0.5]
        assert row["labels"] == likely
    refused = await api.client.post(URL, json={"input": TEXTS, "labels": CHOICES})
    assert (refused.status_code, "classifier" in refused.text) == (400, True)


# Bodies that cannot be answered, the field that is named, and what the message says of the way out.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "labels", "no classifier: give 'labels'"),
    ({"labels": []}, "labels", "empty"),
    ({"labels": "alpha"}, "labels", "list of strings"),
    ({"labels": ["a", 3]}, "labels[1]", "must be a string"),
    ({"labels": ["a", " "]}, "labels[1]", "must not be empty"),
    ({"labels": CHOICES, "map": "topics"}, "map", "either"),
    ({"labels": CHOICES, "template": "about"}, "template", "'{}' once"),
    ({"labels": CHOICES, "template": "{} {}"}, "template", "'{}' once"),
    ({"map": "topics", "template": "about {}"}, "template", "goes with 'labels'"),
    ({"labels": CHOICES, "alpha": 0.1}, "alpha", "model fit --concepts"),
    ({"labels": CHOICES, "multi_label": True}, "multi_label", "model fit --concepts"),
    ({"map": "nope"}, "map", "it has: learned, several, short, topics"),
    ({"map": "short"}, "map", "those that have: learned, several, topics"),
    ({"map": "topics", "alpha": 0.1}, "alpha", "--calibrate"),
    ({"map": "topics", "multi_label": True}, "multi_label", "--calibrate"),
    ({"map": "several", "alpha": 0.1}, "alpha", "one label each"),
    ({"map": "learned", "alpha": 0.01}, "alpha", "99 texts"),
    ({"map": "learned", "alpha": 5e-324}, "alpha", "inf texts"),
    ({"map": "learned", "alpha": 0}, "alpha", "between 0 and 1"),
    ({"map": "learned", "alpha": 1}, "alpha", "between 0 and 1"),
    ({"map": "learned", "alpha": True}, "alpha", "between 0 and 1"),
    ({"map": "learned", "alpha": "0.1"}, "alpha", "between 0 and 1"),
    ({"map": "learned", "alpha": 0.1, "multi_label": True}, "alpha", "one label each"),
    ({"labels": CHOICES, "multi_label": "yes"}, "multi_label", "true or false"),
    ({"labels": CHOICES, "dimensions": 4}, "dimensions", "another dialect"),
    ({"labels": CHOICES, "input": [{"image": "x"}]}, "input[0]", "multimodal"),
    ({"labels": CHOICES, "input": ["a", {"x": 1}]}, "input[1]", "object with 'text'"),
    ({"labels": CHOICES, "input": ["a", "x " * 40]}, "input[1]", "maximum context"),
    ({"labels": ["a", "x " * 40]}, "labels[1]", "maximum context"),
    ({"labels": CHOICES, "model": "nope"}, "model", "does not exist"),
]


async def test_what_cannot_be_is_refused_with_the_way_out(make_api: MakeApi) -> None:
    """The field, or the item, is named, and the message says what to do."""
    api = make_api(OPTIONS)
    for body, param, says in REFUSED:
        answer = await api.client.post(URL, json={"input": TEXTS, **body})
        assert answer.status_code in (400, 404), (body, answer.text)
        assert answer.json()["error"]["param"] == param, body
        assert says in answer.json()["error"]["message"], body


async def test_products_are_bounded(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts and labels together, texts times labels, a template times labels and the answer's size have bounds."""
    api = make_api(ServedOptions(maps=MAPS, limits=ServiceLimits(max_inputs=20, max_tokens=100)))
    few = {"input": ["a"] * 12, "labels": [f"b{n}" for n in range(8)]}
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"input": ["a"] * 12, "labels": [f"b{n}" for n in range(9)]}, "input"),
        ({"input": ["a"], "labels": [f"b{n}" for n in range(21)]}, "input"),
        ({**few, "template": "one {}" + " " * 100}, "template"),
    ]
    assert (await api.client.post(URL, json=few)).status_code == 200
    for body, param in bodies:
        api.served.backend.batches.clear()
        refused = await api.client.post(URL, json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        assert api.served.backend.batches == []
    route = "nestvec.api.routes.classify"
    for name, value in (("MAX_CELLS", 12 * 8 - 1), ("MAX_ANSWER_BYTES", 12 * 8 * (48 + 4) - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(f"{route}.{name}", value)
            assert (await api.client.post(URL, json=few)).status_code == 400
            patch.setattr(f"{route}.{name}", value + 1)
            assert (await api.client.post(URL, json=few)).status_code == 200
    monkeypatch.setattr(f"{route}.MAX_CELLS", 8)
    refused = await api.client.post(URL, json={"input": TEXTS, "map": "topics"})
    assert "3 texts x 3 labels" in refused.text


async def test_models_tell_the_labels_of_maps(make_api: MakeApi) -> None:
    """A map's description has labels, template and whether it is calibrated; one without labels is as it was."""
    api = make_api(OPTIONS)
    maps = (await api.client.get(f"/v1/models/{SPEC.name}")).json()["maps"]
    told = {row["name"]: row for row in maps}
    assert told["learned"]["labels"] == list(LABELS)
    assert (told["learned"]["calibrated"], told["topics"]["calibrated"]) == (True, False)
    assert told["topics"]["template"] == "a text about {}"
    assert not {"labels", "template", "calibrated"} & set(told["short"])


async def test_vectors_of_labels(make_api: MakeApi) -> None:
    """`dimensions` is refused; other maps, and no map, name no labels; a batch's line and base64 name them too."""
    api = make_api(OPTIONS)
    for size in (1, 3):
        refused = await api.embed({"input": "alpha", "map": "topics", "dimensions": size})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")
    for body in ({}, {"map": "short", "dimensions": 3}):
        assert "labels" not in (await api.embed({"input": "alpha", **body})).json()
    coded = await api.embed({"input": "alpha", "map": "topics", "encoding_format": "base64"})
    assert coded.json()["labels"] == list(LABELS)
    lines = [{"input": "alpha", "map": "topics"}, {"input": "alpha"}]
    results = await BatchLines(api.app.state).answer(lines, owner="")
    told = [orjson.loads(result.body).get("labels") for result in results]
    assert told == [list(LABELS), None]
    ranked = await api.client.post("/v1/similarity", json={"left": TEXTS, "map": "topics"})
    assert ranked.status_code == 200


async def test_memory_is_waited_for_as_wide_as_a_map_is(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers through a map of many labels count with all their values, not with the model's own width."""
    reserved: list[int] = []

    async def reserve(_: ApiRequest, count: int) -> None:
        reserved.append(count)

    monkeypatch.setattr("nestvec.api.requests.embedding.reserve_answer", reserve)
    wide = concept_map(labels=tuple(f"label {n}" for n in range(500)))
    api = make_api(ServedOptions(maps=(wide,)))
    for body in ({}, {"map": "topics"}):
        assert (await api.embed({"input": ["alpha"] * 20, **body})).status_code == 200
    assert reserved == [20 * HIDDEN * VALUE_BYTES, 20 * 500 * VALUE_BYTES]
