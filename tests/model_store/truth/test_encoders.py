"""Sparse and multi-vector encoders of sentence-transformers give what the library gives, or are refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.model_store.folder.claims import Verdict
from nestvec.model_store.folder.gate import folder_claims
from nestvec.model_store.folder.model_folder import read_model_folder
from safetensors.numpy import load_file, save_file

from tests.model_store.heads.serving import check_refusal, opened
from tests.model_store.truth.make_encoders import CASES, HERE, TERMS, TEXTS, write_folder

TOLERANCE = 1e-5
EXPECTED = json.loads((HERE / "expected_encoders.json").read_text())["expected"]
ROLES: dict[str, dict[str, str]] = {
    "query": {"prompt_name": "query"},
    "document": {"prompt_name": "document"},
    "none": {},
}


def test_every_case_is_expected_or_refused() -> None:
    """No folder is without an expectation."""
    assert set(EXPECTED) == {name for name, case in CASES.items() if not case.refused}


def as_vector(terms: list[Any]) -> np.ndarray[Any, Any]:
    """Return (id, weight) rows as a vector of all terms."""
    vector = np.zeros(TERMS)
    for term, weight in terms:
        vector[int(term)] = weight
    return vector


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("sparse")])
async def test_terms_are_the_librarys(tmp_path: Path, name: str) -> None:
    """Queries by stored weights, documents by the model, and what is said to be neither by the Router's default."""
    folder = write_folder(tmp_path / "model", CASES[name])
    verdicts = {claim.verdict for claim in folder_claims(folder)}
    assert verdicts == {Verdict.HONOURED, Verdict.WITHOUT_EFFECT}
    async with opened(folder) as server:
        for role, body in ROLES.items():
            rows = await server.post("/embed_sparse", {"inputs": TEXTS, **body})
            for got, expected in zip(rows, EXPECTED[name][role], strict=True):
                terms = [(row["index"], row["value"]) for row in got]
                np.testing.assert_allclose(
                    as_vector(terms), as_vector(expected), rtol=TOLERANCE, atol=TOLERANCE
                )


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("tokens")])
async def test_token_vectors_are_the_librarys(tmp_path: Path, name: str) -> None:
    """Queries and documents by lengths of their own, filled up, left out and merged as the modules say."""
    folder = write_folder(tmp_path / "model", CASES[name])
    verdicts = {claim.verdict for claim in folder_claims(folder)}
    assert verdicts == {Verdict.HONOURED, Verdict.WITHOUT_EFFECT}
    async with opened(folder) as server:
        for role, wanted in EXPECTED[name].items():
            body = {"inputs": TEXTS, "truncate": True, **ROLES[role]}
            for got, expected in zip(await server.post("/embed_all", body), wanted, strict=True):
                assert len(got) == len(expected)
                # Merged vectors have no order of their own: each is the nearest to one of the others.
                gaps = np.abs(np.array(got)[:, None] - np.array(expected)[None]).max(axis=2)
                assert gaps.min(axis=0).max() <= TOLERANCE
                assert gaps.min(axis=1).max() <= TOLERANCE
                if "merged" not in name:
                    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


async def test_a_request_may_merge_more_or_none(tmp_path: Path) -> None:
    """`pool_factor` stands for the model's own factor; documents are merged where nothing is said of a text."""
    folder = write_folder(tmp_path / "model", CASES["tokens: merged documents"])
    async with opened(folder) as server:
        asked = [
            {"input": TEXTS[2], **more} for more in ({}, {"pool_factor": 1}, {"pool_factor": 4})
        ]
        answers = [await server.post("/pooling", body) for body in asked]
    counts = [len(answer["data"][0]["data"]) for answer in answers]
    assert counts[1] > counts[0] > counts[2]


def test_merging_is_part_of_the_space(tmp_path: Path) -> None:
    """Models that merge otherwise have other spaces."""
    heads = []
    for name, case in CASES.items():
        if name.startswith("tokens") and not case.refused:
            heads.append(read_model_folder(write_folder(tmp_path / name, case)).head)
    assert len({str(head.summary()) for head in heads}) == len(heads)
    merging = [head.summary().get("token_pooling") for head in heads]
    assert merging == [
        None,
        "TokenPooling(factor=2.0, kept=1, scales=True, pools_queries=False, pools_documents=True)",
        "TokenPooling(factor=1.5, kept=0, scales=False, pools_queries=True, pools_documents=True)",
    ]


async def test_names_of_the_authors_own_code_are_read(tmp_path: Path) -> None:
    """GTE's checkpoints on the Hub have another prefix and another name for a norm than transformers' class."""
    name = "sparse: the third version's queries"
    folder = write_folder(tmp_path / "model", CASES[name])
    path = folder / "model.safetensors"
    renamed = {
        key.replace("gte.", "new.").replace("lm_head.layer_norm", "lm_head.norm"): tensor
        for key, tensor in load_file(path).items()
    }
    save_file(renamed, path)
    async with opened(folder) as server:
        rows = await server.post("/embed_sparse", {"inputs": TEXTS, **ROLES["document"]})
    for got, expected in zip(rows, EXPECTED[name]["document"], strict=True):
        terms = [(row["index"], row["value"]) for row in got]
        np.testing.assert_allclose(as_vector(terms), as_vector(expected), atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
async def test_what_is_refused_is_named(tmp_path: Path, name: str) -> None:
    """The error says the file and the field."""
    case = CASES[name]
    await check_refusal(write_folder(tmp_path / "model", case), case.refused)
