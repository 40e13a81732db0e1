"""The inputs of the tiny ColModernVBERT, as the engine takes them, and what is expected of them."""

import json
from typing import Any, Final

import numpy as np
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import FloatArray

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.colmodernvbert.models import DOCUMENTS, HERE, QUERIES

MADE: Final[dict[str, Any]] = json.loads((HERE / "colmodernvbert.json").read_text())
# Greatest of the queries' tokens' cosines with documents', summed: [queries, documents].
SCORES: Final[FloatArray] = np.load(HERE / "scores.npy")


def _split(file: str, lengths: list[int]) -> list[FloatArray]:
    rows: FloatArray = np.load(HERE / file)
    return list(np.split(rows, np.cumsum(lengths)[:-1]))


PICTURES: Final = {name: Picture(FORMS[name]()) for name in DOCUMENTS}
IDS: Final[dict[str, list[int]]] = MADE["ids"]
# By its name the vectors of a picture's tokens, and by its text those of a query's.
EXPECTED: Final[dict[str, FloatArray]] = {
    **dict(zip(DOCUMENTS, _split("documents.npy", [len(IDS[n]) for n in DOCUMENTS]), strict=True)),
    **dict(
        zip(QUERIES, _split("queries.npy", [len(ids) for ids in MADE["query_ids"]]), strict=True)
    ),
}


def input_of(name: str) -> str | Picture:
    """Return an input, as the engine takes it."""
    return PICTURES.get(name, name)
