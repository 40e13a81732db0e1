"""The inputs of the tiny ColPali, as the engine takes them and as bodies hold them, and what is expected of them."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import FloatArray

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.colpali.models import HERE, INPUTS
from tests.model_store.vision_language.inputs import url_of

MADE: dict[str, Any] = json.loads((HERE / "colpali.json").read_text())
IDS: dict[str, list[int]] = MADE["ids"]
_ROWS: FloatArray = np.load(HERE / "colpali.npy")
_STOPS = [0, *np.cumsum([len(IDS[name]) for name in INPUTS]).tolist()]
VECTORS: dict[str, FloatArray] = {
    name: _ROWS[start:stop] for name, (start, stop) in zip(INPUTS, pairwise(_STOPS), strict=True)
}


def input_of(name: str) -> str | Picture:
    """Return a query or a picture, as the engine takes it."""
    return Picture(FORMS[name[1:]]()) if name.startswith("@") else name


def item_of(name: str) -> str | dict[str, str]:
    """Return a query or a picture as bodies hold it."""
    return {"image": url_of(name[1:])} if name.startswith("@") else name
