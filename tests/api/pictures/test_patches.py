"""How many patches a picture may have, as a request says it in vLLM's words."""

from typing import Any

import pytest

from tests.api.pictures.conftest import PictureApi
from tests.api.pictures.test_forms import URL, chat_part

FIELD = "mm_processor_kwargs"
PART = chat_part(URL)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
@pytest.mark.parametrize(
    ("value", "patches"),
    [({"max_num_patches": 64}, 64), ({"max_num_patches": None}, None), ({}, None), (None, None)],
)
async def test_patches_reach_the_engine(
    pictures: PictureApi, path: str, value: Any, patches: int | None
) -> None:
    """With pictures as inputs and as messages."""
    for body in ({"input": [PART]}, {"messages": [{"role": "user", "content": [PART]}]}):
        await pictures.post(path, {**body, FIELD: value})
    assert [call.picture_patches for call in pictures.calls] == [patches, patches]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"max_num_patches": 15}, "from 16 to 4096"),
        ({"max_num_patches": 4097}, "from 16 to 4096"),
        ({"max_num_patches": "64"}, "from 16 to 4096"),
        ({"max_num_patches": True}, "from 16 to 4096"),
        ({"min_pixels": 100}, "'max_num_patches' only"),
        ([64], "must be an object"),
    ],
)
async def test_what_is_no_number_of_patches_is_refused(
    pictures: PictureApi, value: Any, words: str
) -> None:
    """Nothing that would change pixels is passed over."""
    param, message = await pictures.refusal("/v1/embeddings", {"input": [PART], FIELD: value})
    assert param == FIELD
    assert words in message
