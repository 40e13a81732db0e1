"""Sparse and multi-vector encoders of sentence-transformers give what the library gives, or are refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.model_store.folder.claims import Verdict
from nestvec.model_store.folder.gate import folder_claims
from safetensors.numpy import load_file, save_file

from tests.model_store.heads.serving import opened
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
    folder = write_folder(tmp_path / "model", case)
    with pytest.raises(FormatError) as caught:
        async with opened(folder):
            pass
    for part in case.refused:
        assert part in str(caught.value)
