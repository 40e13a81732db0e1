"""A served model whose texts are brought into a Unicode form: the settings, by way of the export, to the vectors."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nestvec import Embedder
from nestvec.assembly.service import build_local_service
from nestvec.config.settings import Settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall

from tests.support.tiny import write_tiny_bert

COMPOSED = "café Zürich beta"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer normalizes nothing, and knows accents as letters and as marks."""
    folder = write_tiny_bert(tmp_path_factory.mktemp("forms") / "tiny-accents")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    for number, piece in enumerate(("##é", "##ü", "##\u0301", "##\u0308", "Z")):
        vocabulary[piece] = vocabulary.pop(f"[unused{number}]")
    path.write_text(json.dumps({**content, "normalizer": None}), "utf-8")
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Embedder]:
    """The model as it is."""
    with Embedder(str(folder), cache_dir=folder / "cache") as embedder:
        yield embedder


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The cosine of two unit vectors."""
    return float(first @ second)


def test_nfc_is_nfd(folder: Path, plain: Embedder) -> None:
    """Both spellings have one vector with NFC, that of the composed one; without it they have two."""
    before = plain.embed([COMPOSED, DECOMPOSED])
    assert cosine(before[0], before[1]) < 0.9999
    with Embedder(str(folder), cache_dir=folder / "cache", text={"unicode": "nfc"}) as embedder:
        after = embedder.embed([COMPOSED, DECOMPOSED])

    np.testing.assert_allclose(after[0], after[1], atol=1e-6)
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)


async def test_an_alias_has_a_form_of_its_own(folder: Path, plain: Embedder) -> None:
    """An alias with a table runs on the same model, in a space of its own; the model's vectors stay to the byte."""
    settings = Settings(
        model=str(folder),
        cache_dir=folder / "cache",
        aliases={"composed": {"text": {"unicode": "nfkc", "strip": "control"}}},
    )
    service = build_local_service(settings.for_offline_tools(), NullObserver())
    try:

        async def embed(model: str, text: str) -> EmbedResult:
            return await service.embed(EmbedCall([text], model=model))

        own = await embed("", DECOMPOSED)
        composed = await embed("composed", "ca\u200bfe\u0301 Zu\u0308rich \x07beta")
    finally:
        service.close()
    np.testing.assert_array_equal(own.vectors[0], plain.embed(DECOMPOSED))
    np.testing.assert_allclose(composed.vectors[0], plain.embed(COMPOSED), atol=1e-6)
    assert own.space != composed.space
