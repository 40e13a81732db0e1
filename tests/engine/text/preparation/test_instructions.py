"""Instructions, worked examples, and texts that are read twice."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.text.echo import encode_echo
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.preparation.instructions import Instruct
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall, Example, Truncation
from nestvec.errors import InputError, InputTooLongError

from tests.model_store.heads.serving import opened
from tests.support.served import SPEC
from tests.support.tiny import CONFIG, write_json, write_tiny_bert

INSTRUCT = Instruct("Do {instruction}: ", "Do {instruction}: {query} = {response}; ")
ECHO = ("the : ", " and : ")


def test_templates_are_filled() -> None:
    """Templates are filled, and braces in what callers send stay as they are."""
    prefix = INSTRUCT.prefix("{query}", [Example("a {response}", "b"), Example("c", "d")])
    assert prefix == "Do {query}: a {response} = b; Do {query}: c = d; Do {query}: "
    assert INSTRUCT.prefix("x") == "Do x: "


def test_models_without_templates_say_so() -> None:
    """A model without a template refuses the field that it cannot serve; a literal prompt wins over an instruction."""
    with_examples = EmbedCall(["a"], instruction="x", examples=(Example("q", "r"),))
    with pytest.raises(InputError, match="no template for instructions"):
        resolve_prompt(with_examples, SPEC)
    plain = dataclasses.replace(SPEC, instruct=Instruct("{instruction}> "))
    with pytest.raises(InputError, match="no template for examples"):
        resolve_prompt(with_examples, plain)
    assert resolve_prompt(EmbedCall(["a"], instruction="x"), plain) == ("instruction", "x> ")
    assert resolve_prompt(EmbedCall(["a"], instruction="x", prompt="p"), plain) == ("", "p")


@pytest.fixture
def tokenizer(tiny_folder: Path) -> Tokenizer:
    """A tokenizer of at most twenty tokens an input."""
    return Tokenizer(tiny_folder / "tokenizer.json", max_tokens=20, vocabulary_size=128)


def test_the_second_reading_is_pooled(tokenizer: Tokenizer) -> None:
    """Only the second reading is pooled: all tokens before it are skipped."""
    (encoded,) = encode_echo(tokenizer, ["red one"], TokenizeOptions(Truncation.ERROR), ECHO)
    expected = tokenizer.encode_texts(
        ["the : red one and : red one"], TokenizeOptions(Truncation.ERROR)
    )[0]
    np.testing.assert_array_equal(encoded.ids, expected.ids)
    assert encoded.skip_tokens == 1 + 2 + 2 + 2
    assert not encoded.is_truncated


@pytest.mark.parametrize("truncate", [Truncation.END, Truncation.START])
def test_both_readings_are_cut_alike(tokenizer: Tokenizer, truncate: Truncation) -> None:
    """Both readings are cut alike, and fit together."""
    text = "red one two three four green blue alpha beta gamma"
    (encoded,) = encode_echo(tokenizer, [text], TokenizeOptions(truncate), ECHO)
    assert encoded.is_truncated
    assert len(encoded.ids) <= 20
    second = encoded.ids[encoded.skip_tokens : -1].tolist()
    first = encoded.ids[3 : 3 + len(second)].tolist()
    assert second == first
    whole = tokenizer.encode_texts([text], TokenizeOptions(Truncation.ERROR))[0].ids[1:-1].tolist()
    assert len(second) >= 4
    kept = whole[: len(second) - 1] if truncate is Truncation.END else whole[-len(second) + 1 :]
    assert (second[:-1] if truncate is Truncation.END else second[1:]) == kept


def test_too_long_is_refused_where_asked(tokenizer: Tokenizer) -> None:
    """A text that is too long is refused with the tokens of both readings and the input's index."""
    with pytest.raises(InputTooLongError) as caught:
        encode_echo(tokenizer, ["red", "red " * 12], TokenizeOptions(Truncation.ERROR), ECHO)
    assert (caught.value.input_index, caught.value.got_tokens) == (1, 2 + 4 + 24)


def write_card(folder: Path, model: Path, **overrides: Any) -> str:
    """Write a card of a model folder, and return its path."""
    lines = [f'name = "own"\n[source]\nkind = "folder"\nname = "{model}"\n[overrides]']
    lines += [f"{key} = {value}" for key, value in overrides.items()]
    path = folder / "own.toml"
    path.write_text("\n".join(lines))
    return str(path)


async def test_a_cards_templates_over_http(tmp_path: Path) -> None:
    """A card's templates give the vector of the same words as a literal prompt, examples included."""
    model = write_tiny_bert(tmp_path / "model")
    card = write_card(
        tmp_path,
        model,
        max_tokens=40,
        instruct='{template = "the {instruction} : ", example = "{query} of {response} and "}',
    )
    async with opened(Path(card)) as server:
        body = {
            "input": ["alpha"],
            "instruction": "red",
            "examples": [{"query": "one", "response": "two"}],
        }
        templated = await server.post("/v1/embeddings", body)
        literal = {"input": ["alpha"], "prompt": "one of two and the red : "}
        expected = await server.post("/v1/embeddings", literal)
        for wrong, param in (
            ({"examples": 7}, "examples"),
            ({"examples": [{"query": "a"}]}, "examples[0]"),
            ({"instruction": 7}, "instruction"),
        ):
            answer = await server.client.post("/v1/embeddings", json={"input": "a", **wrong})
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == param
        refused = await server.client.post("/v2/embed", json={"texts": ["a"], "instruction": "x"})
        assert refused.status_code == 400
    assert templated["data"] == expected["data"]


async def test_echo_over_http(tmp_path: Path) -> None:
    """An echo model gives the mean of the second reading's token states."""
    model = write_tiny_bert(tmp_path / "model")
    plain = write_card(tmp_path, model, max_tokens=40)
    async with opened(Path(plain)) as server:
        tokens = await server.post("/embed_all", {"inputs": "the : red one and : red one"})
    states = np.array(tokens[0])[7:]
    mean = states.mean(axis=0)
    echoing = write_card(tmp_path, model, max_tokens=40, echo='["the : ", " and : "]')
    async with opened(Path(echoing)) as server:
        echoed = await server.post("/embed", {"inputs": "red one"})
    np.testing.assert_allclose(echoed[0], mean / np.linalg.norm(mean), atol=1e-5)


async def test_first_and_last_layer(tmp_path: Path) -> None:
    """`first_last_mean` pools the mean of what the first layer and the last one give."""
    model = write_tiny_bert(tmp_path / "model")
    shallow = write_tiny_bert(tmp_path / "shallow")
    config = {**CONFIG, "num_hidden_layers": 1}
    write_json(shallow / "config.json", config)
    raw = {}
    body = {"inputs": ["the red one"], "normalize": False}
    for name, folder in (("first", shallow), ("last", model)):
        async with opened(folder) as server:
            raw[name] = np.array((await server.post("/embed", body))[0])
    write_json(model / "1_Pooling/config.json", {"pooling_mode": "first_last_mean"})
    async with opened(model) as server:
        pooled = await server.post("/embed", body)
    np.testing.assert_allclose(pooled[0], (raw["first"] + raw["last"]) / 2, atol=1e-5)
