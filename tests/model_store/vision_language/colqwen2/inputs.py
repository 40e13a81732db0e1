"""The inputs of the tiny ColQwen2, as the engine takes them and as bodies hold them, and what is expected of them."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import FloatArray

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.colqwen2.models import HERE, INPUTS
from tests.model_store.vision_language.inputs import url_of

MADE: dict[str, Any] = json.loads((HERE / "colqwen2.json").read_text())
TOKENS: dict[str, int] = MADE["tokens"]
_ROWS: FloatArray = np.load(HERE / "colqwen2.npy")
_STOPS = [0, *np.cumsum([TOKENS[name] for name in INPUTS]).tolist()]
VECTORS: dict[str, FloatArray] = {
    name: _ROWS[start:stop] for name, (start, stop) in zip(INPUTS, pairwise(_STOPS), strict=True)
}


def input_of(name: str) -> str | Picture:
    """Return an input, as the engine takes it."""
    return Picture(FORMS[name[1:]]()) if name.startswith("@") else name


def item_of(name: str) -> str | dict[str, str]:
    """Return an input as Jina's bodies hold it, and those of routes that compare."""
    return {"image": url_of(name[1:])} if name.startswith("@") else name


def part_of(name: str) -> str | dict[str, Any]:
    """Return an input as OpenAI's bodies hold it."""
    if not name.startswith("@"):
        return name
    return {"type": "image_url", "image_url": {"url": url_of(name[1:])}}
