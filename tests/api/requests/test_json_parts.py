"""Large answers: their JSON is that of the whole, and is made in slices between which the loop goes round."""

import asyncio
import base64
from typing import Any

import numpy as np
import orjson
import pytest
from nestvec.api.requests import json_parts, vector_json
from nestvec.api.requests.json_parts import (
    Turns,
    join_parts,
    listed,
    lists_json,
    object_parts,
    text_json,
    texts_json,
    with_field,
)
from nestvec.api.requests.vector_json import rows_json, values_json
from numpy.typing import NDArray


class Rounds:
    """Counts how often the loop goes round while something is awaited."""

    def __init__(self) -> None:
        self.count = 0

    async def __aenter__(self) -> "Rounds":
        self._task = asyncio.create_task(self._go_round())
        await asyncio.sleep(0)
        self.count = 0
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _go_round(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


@pytest.fixture(params=[np.float32, np.float16, np.int8, np.float64])
def block(request: pytest.FixtureRequest) -> NDArray[Any]:
    """An array of many short rows."""
    values = np.random.default_rng(0).standard_normal((700, 37)) * 50
    return values.astype(request.param)


async def test_a_block_of_many_values(monkeypatch: pytest.MonkeyPatch, block: NDArray[Any]) -> None:
    """A row of more values than a slice holds is encoded as it would be whole, as numbers and as base64."""
    monkeypatch.setattr(vector_json, "VALUES_PER_SLICE", 999)
    async with Rounds() as rounds:
        (numbers,) = await rows_json([block], as_base64=False)
        (packed,) = await rows_json([block], as_base64=True)
        flat = await join_parts(await values_json(block.reshape(-1)))
    assert numbers == orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)
    assert orjson.loads(packed) == base64.b64encode(block.tobytes()).decode()
    assert flat == orjson.dumps(block.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
    assert rounds.count >= 2 * block.size // 1000


async def test_a_block_that_is_not_contiguous() -> None:
    """Columns that were cut are encoded as they are."""
    block = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)[:, :40]
    (numbers,) = await rows_json([block], as_base64=False)
    assert orjson.loads(numbers) == [list(map(float, map(str, row))) for row in block]


async def test_texts_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is encoded in slices is what it is whole: escapes, quotes, characters of four bytes."""
    monkeypatch.setattr(json_parts, "CHARS_PER_SLICE", 10)
    texts = ["", "short", 'q"\\\x01\n' * 40, "é🙂日" * 77]
    async with Rounds() as rounds:
        encoded = await texts_json(texts)
    assert [orjson.loads(text) for text in encoded] == texts
    assert rounds.count >= 30
    assert await text_json("a", Turns(10)) == b'"a"'


async def test_lists_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of no, few and many objects."""
    monkeypatch.setattr(json_parts, "OBJECTS_PER_SLICE", 7)
    lists = [[], [1], list(range(50))]
    encoded = await lists_json(lists, lambda number: {"n": number})
    assert [orjson.loads(part) for part in encoded] == [[{"n": n} for n in row] for row in lists]


async def test_parts_of_objects() -> None:
    """Fields keep their order, and encoded ones stand in their place."""
    parts = object_parts({"a": 1, "large": None, "z": "x"}, {"large": listed([b"1", b"2"])})
    assert await join_parts(parts) == b'{"a":1,"large":[1,2],"z":"x"}'
    assert b"".join(listed([])) == b"[]"
    assert with_field([b'{"a":1}'], "b", [b"2"]) == [b'{"a":1,"b":2}']


async def test_much_is_joined_in_a_thread() -> None:
    """What is over the bound comes out whole."""
    parts = [b"x" * 400_000] * 5
    assert await join_parts(parts) == b"x" * 2_000_000
