"""Token arrays: which vocabulary they are in, and cl100k ids back to text."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from nestvec.api.token_input import TokenDecoder
from nestvec.errors import InputError

from tests.api.applications import MakeApi
from tests.end_to_end.clients.venv import cl100k_table

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def table() -> Path:
    """The real cl100k table."""
    return cl100k_table()


@pytest.fixture
def decoder(table: Path) -> TokenDecoder:
    """A decoder that reads its table from a file, as on hosts without a network."""
    return TokenDecoder("auto", table)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([15339], "hello"),
        ([15339, 1917], "hello world"),
        ([9468, 248, 222], "🚀"),
        ([9468, 248], "\ufffd"),
        ([15339, 100257, 1917], "hello world"),
        ([100257], ""),
        ([100276], ""),
    ],
    ids=[
        "a word",
        "two",
        "an emoji",
        "half an emoji",
        "a special id within",
        "only special",
        "last special",
    ],
)
async def test_cl100k_ids_become_text(decoder: TokenDecoder, ids: list[int], text: str) -> None:
    """Ids become the text they stand for; special ids are dropped, and half a character becomes U+FFFD."""
    assert await decoder.resolve([ids], vocabulary=None) == [text]


async def test_every_id_of_the_table_decodes(decoder: TokenDecoder) -> None:
    """All 100,256 ids of the table decode."""
    texts = await decoder.resolve([[i] for i in range(100_256)], vocabulary=None)
    assert len(texts) == 100_256


@pytest.mark.parametrize("wrong", [100_256, 100_277, 200_000, 2**70])
async def test_ids_that_cl100k_does_not_have_are_refused(decoder: TokenDecoder, wrong: int) -> None:
    """An id beyond cl100k is refused by its index, as the caller must mean another vocabulary."""
    with pytest.raises(InputError, match="x-embed-token-vocab: model") as caught:
        await decoder.resolve([[1], [wrong]], vocabulary=None)
    assert caught.value.input_index == 1


async def test_tiktokens_own_cache_is_used(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, tiktoken finds the table in its own cache or fetches it."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(table.parent))
    assert await TokenDecoder("cl100k").resolve([[15339]], vocabulary=None) == ["hello"]


async def test_without_a_table_the_error_names_the_way_out(tmp_path: Path) -> None:
    """The error says how to do without the table; the failure is remembered, so that not each request waits for it."""
    decoder = TokenDecoder("auto", tmp_path / "absent")
    for _ in range(2):
        with pytest.raises(InputError, match="check_embedding_ctx_length=False"):
            await decoder.resolve([[1]], vocabulary=None)


async def test_a_file_that_is_another_table_is_refused(tmp_path: Path) -> None:
    """A table of another hash is not taken for cl100k."""
    (tmp_path / "table").write_bytes(b"aGVsbG8= 0\n")
    with pytest.raises(InputError, match="could not be loaded"):
        await TokenDecoder("auto", tmp_path / "table").resolve([[0]], vocabulary=None)


@pytest.mark.parametrize(
    ("mode", "header", "expected"),
    [("model", None, [[1, 2]]), ("reject", "model", [[1, 2]]), ("auto", "model", [[1, 2]])],
)
async def test_ids_of_the_models_vocabulary_pass(
    mode: str, header: str | None, expected: Sequence[Sequence[int]]
) -> None:
    """Ids of the model's own vocabulary pass through, by the setting or by the header."""
    assert await TokenDecoder(mode).resolve([[1, 2]], vocabulary=header) == expected


@pytest.mark.parametrize(("mode", "header"), [("reject", None), ("auto", "klingon")])
async def test_refusals(mode: str, header: str | None) -> None:
    """Token arrays are refused by the setting, or for an unknown word in the header."""
    with pytest.raises(InputError) as caught:
        await TokenDecoder(mode).resolve([[1, 2]], vocabulary=header)
    assert caught.value.param == "input"


async def test_ids_and_text_give_the_same_vector_over_http(make_api: MakeApi, table: Path) -> None:
    """Langchain's default body of cl100k ids is answered like the texts that it stands for."""
    api = make_api(cl100k_file=table)
    by_ids = await api.embed({"input": [[15339], [15339, 1917]], "model": "fake-model"})
    by_text = await api.embed({"input": ["hello", "hello world"], "model": "fake-model"})
    assert by_ids.status_code == 200
    assert by_ids.json() == by_text.json()
