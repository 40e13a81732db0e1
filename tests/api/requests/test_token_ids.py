"""Token ids that the model's tokenizer would not have made: embedded as they are, and flagged."""

import json
from pathlib import Path
from typing import Any

import pytest
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.token_report import is_unusual
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Truncation

from tests.api.applications import Api

HEADER = "x-embed-unusual-token-ids"


@pytest.fixture
def tokenizer(tiny_folder: Path, tmp_path: Path) -> Tokenizer:
    """A tokenizer of at most sixteen tokens an input, with the decoder that BERT's have."""
    return read(tiny_folder, tmp_path, {"type": "WordPiece", "prefix": "##", "cleanup": True})


def read(folder: Path, to: Path, decoder: dict[str, Any] | None) -> Tokenizer:
    """Read a folder's tokenizer with another decoder."""
    text = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    path = to / "tokenizer.json"
    path.write_text(json.dumps({**text, "decoder": decoder}))
    return Tokenizer(path, max_tokens=16, vocabulary_size=128)


TEXTS = [
    "alpha beta",
    "abc xyz",
    "",
    "\u4e2d alpha",
    "ALPHA  beta",
    "d o not",
    "\N{FACE WITH TEARS OF JOY}",
]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids that the tokenizer makes of a text."""
    (encoded,) = tokenizer.encode_texts([text], TokenizeOptions(Truncation.ERROR))
    ids: list[int] = encoded.ids.tolist()
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_a_text_are_usual(
    tokenizer: Tokenizer, tiny_folder: Path, tmp_path: Path, text: str
) -> None:
    """What the tokenizer makes of a text is not flagged: unknown words included, and where nothing decodes."""
    assert not is_unusual(tokenizer, ids_of(tokenizer, text))
    bare = read(tiny_folder, tmp_path, None)
    assert not is_unusual(bare, ids_of(bare, text))


def test_other_ids_are_unusual(tokenizer: Tokenizer, tiny_folder: Path, tmp_path: Path) -> None:
    """Ids without special tokens, with some in their midst, or in pieces where a word has one are flagged."""
    first, alpha, beta, last = ids_of(tokenizer, "alpha beta")
    vocabulary = json.loads((tiny_folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    letters = [vocabulary[piece] for piece in ("a", "##l", "##p", "##h", "##a")]
    for ids in (
        [alpha, beta],
        [first, alpha, last, beta, last],
        [first, *letters, last],
        [first, 0, alpha, last],
        [first, first, alpha, last],
    ):
        assert is_unusual(tokenizer, ids)
    assert is_unusual(read(tiny_folder, tmp_path, None), [alpha, beta])
    assert not is_unusual(tokenizer, [alpha] * 17)  # refused or cut, which the answer says


async def test_an_answer_says_how_many_are_unusual(api: Api) -> None:
    """Unusual ids are embedded as they are, and a header says of how many inputs; usual ones have no header."""
    (encoded,) = api.served.tokenizer.encode_texts(
        ["alpha beta"], TokenizeOptions(Truncation.ERROR)
    )
    ids = encoded.ids.tolist()
    model = {"x_embed_token_vocab": "model"}
    answer = await api.embed({"input": [ids, ids[1:-1], ids[1:]]}, **model)
    assert answer.status_code == 200
    assert answer.headers[HEADER] == "2"
    assert HEADER not in (await api.embed({"input": [ids]}, **model)).headers
    assert HEADER not in (await api.embed({"input": "alpha"})).headers
    answer = await api.client.post("/embed", json={"inputs": [ids[1:], "alpha"]})
    assert answer.headers[HEADER] == "1"
    both = await api.embed({"input": [ids[1:]], "unheard_of": 1}, **model)
    assert {HEADER, "x-embed-ignored-fields"} <= set(both.headers)
