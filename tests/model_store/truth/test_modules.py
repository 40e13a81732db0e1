"""sentence-transformers' own files are honoured as the library does, or refused with the file and the field."""

import json
from pathlib import Path

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.module_classes import module_kind, suits

from tests.model_store.heads.serving import check_refusal, opened
from tests.model_store.truth.make_modules import CASES, HERE, PAIRS, TEXTS, write_folder

TOLERANCE = 1e-4
EXPECTED = json.loads((HERE / "expected_modules.json").read_text())["expected"]


def test_every_case_is_expected_or_refused() -> None:
    """No folder is without an expectation."""
    assert set(EXPECTED) == {name for name, case in CASES.items() if not case.refused}


@pytest.mark.parametrize("name", EXPECTED)
async def test_what_is_served_is_the_librarys(tmp_path: Path, name: str) -> None:
    """Vectors, or scores of pairs, are equal."""
    case = CASES[name]
    folder = write_folder(tmp_path / "model", case)
    async with opened(folder) as server:
        if case.is_classifier:
            asked = [{"query": query, "documents": [document]} for query, document in PAIRS]
            answers = [await server.post("/v2/rerank", body) for body in asked]
            got = [[answer["results"][0]["relevance_score"]] for answer in answers]
        else:
            got = await server.post("/embed", {"inputs": TEXTS, "truncate": True})
    np.testing.assert_allclose(got, EXPECTED[name], atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
async def test_what_is_refused_is_named(tmp_path: Path, name: str) -> None:
    """The error says the file and the field."""
    case = CASES[name]
    await check_refusal(write_folder(tmp_path / "model", case), case.refused)


def test_a_card_says_that_code_is_plain(tmp_path: Path) -> None:
    """Classes of the model's own are then taken for those of their names, but never the library's other ones."""
    folder = write_folder(tmp_path / "model", CASES["another package's Transformer"])
    assert read_model_folder(folder, {"code": "plain"}).head.pooling == "mean"
    folder = write_folder(tmp_path / "convolutions", CASES["convolutions"])
    with pytest.raises(FormatError, match="'CNN' is not supported"):
        read_model_folder(folder, {"code": "plain"})


def test_a_card_says_several_poolings(tmp_path: Path) -> None:
    """Their names stand as the library writes them, or as they are listed."""
    folder = write_folder(tmp_path / "model", CASES["paths of packages"])
    head = read_model_folder(folder, {"pooling": "lasttoken+mean"}).head
    assert (head.pooling, head.dimensions) == ("last_token+mean", 64)
    with pytest.raises(FormatError, match="'odd' is not one of"):
        read_model_folder(folder, {"pooling": "mean+odd"})


async def test_a_card_says_that_prompts_are_not_pooled(tmp_path: Path) -> None:
    """What the library's `include_prompt` says in a file, `pools_prompt` says in a card: the same vectors."""
    name = "pooling: mean without the prompt"
    folder = write_folder(tmp_path / "model", CASES[name])
    settings = folder / "1_Pooling/config.json"
    settings.write_text(settings.read_text().replace("include_prompt", "odd"))
    card = tmp_path / "card.toml"
    source = f'[source]\nkind = "folder"\nname = "{folder}"\n'
    card.write_text(f'name = "tiny"\n{source}[overrides]\npools_prompt = false\n')
    async with opened(card) as server:
        got = await server.post("/embed", {"inputs": TEXTS, "truncate": True})
    np.testing.assert_allclose(got, EXPECTED[name], atol=TOLERANCE)
    settings.unlink()
    assert (
        read_model_folder(folder, {"pooling": "mean", "pools_prompt": False}).pools_prompt is False
    )
    with pytest.raises(FormatError, match="pools_prompt: false with the pooling cls"):
        read_model_folder(folder, {"pooling": "cls", "pools_prompt": False})


def test_known_code_is_known_for_its_architectures() -> None:
    """Jina 3's own Transformer module is what the exporter computes, for Jina 3 only."""
    assert module_kind("custom_st.Transformer") == "Transformer"
    assert suits("custom_st.Transformer", "jina_embeddings_v3")
    assert not suits("custom_st.Transformer", "bert")
    assert module_kind("Transformer") is None
    assert module_kind("my.sentence_transformers.models.Transformer") is None
