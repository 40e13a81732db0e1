"""The inputs of the tiny Qwen3-VL, as the engine takes them and as bodies hold them, and what is expected of them."""

import base64
import json
from typing import Any

import numpy as np
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.types import FloatArray

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.models import HERE, INPUTS, INSTRUCTION

EXPECTED: FloatArray = np.load(HERE / "qwen3_vl.npy")
MADE: dict[str, Any] = json.loads((HERE / "qwen3_vl.json").read_text())
NAMES = tuple(INPUTS)


def expected(name: str) -> FloatArray:
    """Return the vector of an input."""
    row: FloatArray = EXPECTED[NAMES.index(name)]
    return row


def input_of(name: str) -> str | Picture | MixedInput:
    """Return an input: a text or a picture alone as it is, others with all that they have."""
    instruction, parts = INPUTS[name]
    read = [Picture(FORMS[part[1:]]()) if part[0] == "@" else part for part in parts]
    if len(read) == 1 and instruction == INSTRUCTION:
        return read[0]
    return MixedInput(tuple(read), None if instruction == INSTRUCTION else instruction)


def url_of(form: str) -> str:
    """Return a form's picture as a data URL."""
    return "data:application/octet-stream;base64," + base64.b64encode(FORMS[form]()).decode()


def parts_of(name: str) -> list[dict[str, Any]]:
    """Return an input's parts, as OpenAI's chats have them."""
    return [
        {"type": "image_url", "image_url": {"url": url_of(part[1:])}}
        if part[0] == "@"
        else {"type": "text", "text": part}
        for part in INPUTS[name][1]
    ]
