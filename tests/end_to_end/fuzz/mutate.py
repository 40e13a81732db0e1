"""Mutations of files, of their bytes and of the structure of JSON, from a seed, so that a finding can be repeated."""

import copy
import json
import random
from typing import Any

ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", "a", "\x00", "é" * 300, "\ud800", "../../etc/passwd", "/etc/passwd", "x" * 70_000),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": {"c": []}}}, [1, "a", None, {}]),
)
DEEP = 2000


def mutated_bytes(content: bytes, chooser: random.Random) -> bytes:
    """Flip, cut, double, insert, or overwrite a few bytes."""
    data = bytearray(content)
    for _ in range(chooser.choice((1, 1, 1, 2, 4, 16))):
        offset = chooser.randrange(len(data) + 1)
        kind = chooser.randrange(6)
        if kind == 0 and data:
            data[min(offset, len(data) - 1)] ^= 1 << chooser.randrange(8)
        elif kind == 1:
            del data[offset:]
        elif kind == 2:
            stop = offset + chooser.randrange(1, 64)
            data[offset:offset] = data[offset:stop]
        elif kind == 3:
            data[offset:offset] = chooser.randbytes(chooser.randrange(1, 16))
        elif kind == 4:
            del data[offset : offset + chooser.randrange(1, 64)]
        else:
            number = chooser.choice((0, 1, 0x7F, 0xFF, 0x80))
            data[offset : offset + 8] = bytes([number]) * 8
    return bytes(data)


def mutated_json(value: Any, chooser: random.Random) -> Any:
    """Replace, remove, rename or add a few nodes of a value."""
    mutated = json.loads(json.dumps(value))
    for _ in range(chooser.choice((1, 1, 2, 3))):
        mutated = _mutated_node(mutated, chooser)
    return mutated


def _mutated_node(value: Any, chooser: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or chooser.random() < 0.1:
        return nested() if chooser.random() < 0.02 else copy.deepcopy(chooser.choice(ODD))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = chooser.choice(keys)
    action = chooser.random()
    if action < 0.65:
        value[key] = _mutated_node(value[key], chooser)
    elif action < 0.8:
        del value[key]
    elif isinstance(value, dict):
        value[chooser.choice(("", "x", "a" * 500, f"{key}2"))] = value.pop(key)
    else:
        value.insert(key, copy.deepcopy(chooser.choice(ODD)))
    return value


def nested() -> Any:
    """A list that is nested more deeply than any parser follows."""
    value: Any = []
    for _ in range(DEEP):
        value = [value]
    return value


def as_json(value: Any) -> bytes:
    """Write a value as JSON, whatever it holds; a value that is too deep is written by hand."""
    try:
        return json.dumps(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * DEEP + b"]" * DEEP


def half_and_half(content: bytes, chooser: random.Random) -> bytes:
    """Mutate the structure of a JSON file, or its bytes."""
    if chooser.random() < 0.7:
        return as_json(mutated_json(json.loads(content), chooser))
    return mutated_bytes(content, chooser)
