"""Scores of tokens over `/v1/similarity`: BERTScore and MaxSim, against the formulas of their papers."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.types import OutputKind, Truncation
from nestvec.engine.vectors import token_vectors
from nestvec.engine.vectors.token_vectors import nearest_tokens
from numpy.typing import NDArray

from tests.api.applications import Api, MakeApi
from tests.support.fakes import fake_states
from tests.support.served import SPEC, ServedOptions

KINDS = (OutputKind.DENSE, OutputKind.TOKENS)
OPTIONS = ServedOptions(spec=dataclasses.replace(SPEC, kinds=KINDS, default_prompt="query"))
LEFT, RIGHT = ["alpha beta one", "red", ""], ["one two three red", "alpha beta one"]
Array = NDArray[np.float64]


def _unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _own_states(api: Api, text: str, width: int | None = None) -> Array:
    """States of a text's own tokens, those of [CLS] and [SEP] left out, cut and of unit length."""
    (encoded,) = api.served.tokenizer.encode_texts([text], TokenizeOptions(Truncation.END))
    return _unit(fake_states(encoded.ids)[1:-1, :width])


def _bert_score(candidate: Array, reference: Array) -> tuple[float, float, float]:
    """F1, precision and recall as in section 3 of the paper."""
    if not len(candidate) or not len(reference):
        return 0.0, 0.0, 0.0
    cosines = candidate @ reference.T
    precision, recall = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
    return 2 * precision * recall / (precision + recall), precision, recall


@pytest.mark.parametrize("width", [None, 5])
async def test_bert_scores_are_the_papers(make_api: MakeApi, width: int | None) -> None:
    """Each text on the left is a candidate, each on the right a reference; special tokens and prompts do not count."""
    api = make_api(OPTIONS)
    lefts, rights = ([_own_states(api, text, width) for text in side] for side in (LEFT, RIGHT))
    expected = np.array([[_bert_score(a, b) for b in rights] for a in lefts])
    body: dict[str, Any] = {"left": LEFT, "right": RIGHT, "metric": "bertscore"}
    body |= {} if width is None else {"dimensions": width}
    answer = await api.client.post("/v1/similarity", json=body)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    for number, name in enumerate(("similarities", "precision", "recall")):
        # Random states have cosines around zero, whose harmonic mean is that much less exact.
        np.testing.assert_allclose(content[name], expected[..., number], atol=1e-6, rtol=1e-5)
    assert (content["metric"], content["dimensions"]) == ("bertscore", width or 8)
    pairs = {"pairs": [[LEFT[0], RIGHT[0]], [LEFT[1], RIGHT[1]], [LEFT[2], RIGHT[1]]]}
    content = (
        await api.client.post("/v1/similarity", json={**body, "left": None, "right": None, **pairs})
    ).json()
    for number, name in enumerate(("similarities", "precision", "recall")):
        wanted = [expected[0, 0, number], expected[1, 1, number], expected[2, 1, number]]
        np.testing.assert_allclose(content[name], wanted, atol=1e-6, rtol=1e-5)


async def test_a_text_is_wholly_like_itself(make_api: MakeApi) -> None:
    """One list is compared with itself, and run once."""
    api = make_api(OPTIONS)
    body = {"left": LEFT[:2], "metric": "bertscore"}
    content = (await api.client.post("/v1/similarity", json=body)).json()
    for name in ("similarities", "precision", "recall"):
        np.testing.assert_allclose(np.diag(content[name]), [1, 1], atol=1e-6)
    assert sum(map(len, api.served.backend.batches)) == 2
    assert content["usage"]["prompt_tokens"] == sum(map(sum, api.served.backend.batches))


async def test_max_sims_sum_over_the_left(make_api: MakeApi) -> None:
    """The left texts are queries and the right ones documents, each with its prompt, with all tokens that are given."""
    api = make_api(OPTIONS)
    body = {"left": LEFT[:2], "right": RIGHT, "metric": "maxsim"}
    content = (await api.client.post("/v1/similarity", json=body)).json()
    tokens = []
    for side, prompt in ((LEFT[:2], "query : "), (RIGHT, "passage : ")):
        encoded = api.served.tokenizer.encode_texts(
            [prompt + text for text in side], TokenizeOptions(Truncation.END)
        )
        tokens.append([_unit(fake_states(each.ids)) for each in encoded])
    expected = [[(a @ b.T).max(axis=1).sum() for b in tokens[1]] for a in tokens[0]]
    np.testing.assert_allclose(content["similarities"], expected, atol=1e-5)
    assert "precision" not in content


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 6), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_nearest_tokens_are_found_some_at_a_time(
    counts: list[int], tokens: int, at_once: int
) -> None:
    """However few cosines are in memory at once, the sums are those of whole matrices; empty texts are near to none."""
    generator = np.random.default_rng(sum(counts) + tokens)
    left, rights = (
        generator.standard_normal((n, 4)).astype(np.float32) for n in (tokens, sum(counts))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_vectors, "MAX_COSINES", at_once)
        near = nearest_tokens(left, rights, np.array(counts))
    stops = np.cumsum(counts)
    for number, part in enumerate(np.split(rights, stops[:-1])):
        cosines = left @ part.T
        wanted = (cosines.max(axis=1).sum(), cosines.max(axis=0).sum()) if cosines.size else (0, 0)
        np.testing.assert_allclose((near.left[number], near.right[number]), wanted, atol=1e-5)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"metric": "rouge"}, "metric"),
    ({"metric": 1}, "metric"),
    ({"metric": "bertscore", "output_dtype": "int8"}, "metric"),
    ({"metric": "bertscore", "layers": 2}, "metric"),
    ({"metric": "bertscore", "dimensions": 9}, "dimensions"),
    ({"metric": "maxsim", "left": None, "pairs": [["a", "b"]], "explain": True}, "explain"),
]


async def test_what_goes_with_whole_texts_is_refused(make_api: MakeApi) -> None:
    """Token vectors have no exits, maps or other dtypes to compare; the field is named."""
    api = make_api(OPTIONS)
    for fields, param in REFUSED:
        answer = await api.client.post("/v1/similarity", json={"left": LEFT, **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), fields


async def test_models_say_what_they_cannot_compare(make_api: MakeApi) -> None:
    """A model without token vectors has neither metric, one for late interaction only its own."""
    dense = dataclasses.replace(SPEC, kinds=(OutputKind.DENSE,))
    api = make_api(ServedOptions(spec=dense))
    answer = await api.client.post("/v1/similarity", json={"left": LEFT, "metric": "maxsim"})
    assert (answer.status_code, "token vectors" in answer.text) == (400, True)
    spec = dataclasses.replace(
        SPEC, kinds=(OutputKind.TOKENS,), late_interaction=LateInteraction(), prompts={}
    )
    api = make_api(ServedOptions(spec=spec))
    refused = await api.client.post("/v1/similarity", json={"left": LEFT, "metric": "bertscore"})
    assert (refused.status_code, "'maxsim'" in refused.text) == (400, True)
    assert (
        await api.client.post("/v1/similarity", json={"left": LEFT, "metric": "maxsim"})
    ).status_code == 200


async def test_pairs_of_tokens_are_bounded(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal says how many there are, and how many there may be."""
    api = make_api(OPTIONS)
    body = {"left": LEFT, "right": RIGHT, "metric": "bertscore"}
    # Four tokens of texts on the left, seven on the right, eight dimensions.
    monkeypatch.setattr("nestvec.api.scoring.token_comparison.MAX_PRODUCTS", 4 * 7 * 8)
    assert (await api.client.post("/v1/similarity", json=body)).status_code == 200
    monkeypatch.setattr("nestvec.api.scoring.token_comparison.MAX_PRODUCTS", 4 * 7 * 8 - 1)
    answer = await api.client.post("/v1/similarity", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metric")
    assert "28 pairs of tokens here, max 27" in answer.text
