"""`nestvec.Embedder`: vectors and rankings in a process of the user's own."""

import asyncio
import logging
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec import Embedder
from nestvec.assembly.library.calls import SLICE_TEXTS
from nestvec.errors import ConfigError, InputError, InputTooLongError, UnknownModelError

from tests.support.tiny import write_tiny_bert

PAGE = Path(__file__).parents[3] / "docs/library.md"
# A fork has no threads of its parent; the child says what it saw by its exit status.
FORKED = """
import os, sys
from nestvec import Embedder
embedder = Embedder(sys.argv[1], cache_dir=sys.argv[2])
before = embedder.embed("alpha")
if (child := os.fork()) == 0:
    try:
        embedder.embed("alpha")
    except RuntimeError as error:
        with Embedder(sys.argv[1], cache_dir=sys.argv[2]) as own:
            is_same = (own.embed("alpha") == before).all()
        os._exit(0 if "another process" in str(error) and is_same else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert (embedder.embed("alpha") == before).all()
# It is not closed: the process ends all the same.
"""


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    """An embedder with two tiny models."""
    folder = tmp_path_factory.mktemp("library")
    write_tiny_bert(folder / "first")
    write_tiny_bert(folder / "second", seed=3)
    models = [str(folder / "first"), str(folder / "second")]
    parts = [{"weight": 0.8}, {"model": str(folder / "second"), "weight": 0.2}]
    recipes = {"both": {"combine": "concat", "parts": parts}}
    with Embedder(models, cache_dir=folder / "cache", recipes=recipes) as made:
        yield made


def test_one_text_or_many(embedder: Embedder) -> None:
    """A text gives a vector, many give a matrix whose rows are those of each text alone; none give no rows."""
    many = embedder.embed(["alpha", "beta gamma"])
    assert many.shape == (2, 32)
    assert many.dtype == np.float32
    for row, text in zip(many, ("alpha", "beta gamma"), strict=True):
        np.testing.assert_allclose(row, embedder.embed(text), atol=1e-5)
    assert embedder.embed([]).shape == (0, 32)
    assert embedder.embed([], dtype="ubinary", dimensions=16).shape == (0, 2)
    assert embedder.embed([], dtype="ubinary").dtype == np.uint8
    np.testing.assert_array_equal(embedder.embed(t for t in ("alpha", "beta gamma")), many)


def test_dimensions_and_dtypes(embedder: Embedder) -> None:
    """Vectors are cut and normalized again, and given in the dtype asked for."""
    whole, cut = embedder.embed("alpha beta"), embedder.embed("alpha beta", dimensions=np.int64(8))
    np.testing.assert_allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)
    bits = embedder.embed("alpha beta", dtype="ubinary")
    np.testing.assert_array_equal(bits, np.packbits(whole > 0))
    assert embedder.embed("alpha", dtype="int8").dtype == np.int8


def test_more_texts_than_a_slice_keep_their_order(embedder: Embedder) -> None:
    """Texts of several calls of the engine come back in their order, whichever call ends first."""
    words = ("alpha", "beta", "gamma", "delta", "red", "green")
    texts = [words[n % 6] + " one" * (n % 7) for n in range(2 * SLICE_TEXTS + 5)]
    vectors = embedder.embed(texts)
    picked = [0, SLICE_TEXTS - 1, SLICE_TEXTS, 2 * SLICE_TEXTS + 4]
    np.testing.assert_allclose(
        vectors[picked], embedder.embed([texts[n] for n in picked]), atol=1e-5
    )


def test_groups_and_contexts_go_through_all_slices(embedder: Embedder) -> None:
    """No call of the engine parts a group, and each text keeps its own weight and context."""
    words = ("alpha", "beta", "gamma", "delta", "red", "green")
    texts = [words[n % 6] for n in range(SLICE_TEXTS + 8)]
    groups = [3] * (len(texts) // 3)
    weights = [1 + n % 4 for n in range(len(texts))]
    context = [words[n % 5] for n in range(len(texts))]
    vectors = embedder.embed(texts, groups=groups, weights=weights, context=context)
    assert vectors.shape == (len(groups), 32)
    for number in (0, SLICE_TEXTS // 3, len(groups) - 1):
        part = slice(3 * number, 3 * number + 3)
        alone = [
            embedder.embed(t, context=c) for t, c in zip(texts[part], context[part], strict=True)
        ]
        total = np.array(weights[part]) @ np.array(alone)
        np.testing.assert_allclose(vectors[number], total / np.linalg.norm(total), atol=1e-5)
    plain, one = embedder.embed("alpha beta"), embedder.embed("alpha beta", context="red")
    assert np.abs(plain - one).max() > 1e-3


def test_errors_name_the_text(embedder: Embedder) -> None:
    """An error names the text by its index in the list that was given, also beyond the first slice."""
    too_long = "alpha " * 100
    texts = ["alpha"] * (SLICE_TEXTS + 3) + [too_long]
    with pytest.raises(InputTooLongError) as caught:
        embedder.embed(texts)
    assert caught.value.input_index == SLICE_TEXTS + 3
    assert f"texts[{SLICE_TEXTS + 3}]" in caught.value.__notes__[0]
    assert embedder.embed(too_long, truncate="end").shape == (32,)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dtype": "float"}, "dtype"),
        ({"role": "author"}, "role"),
        ({"truncate": "middle"}, "truncate"),
        ({"dimension": 4}, "dimension"),
        ({"dimensions": 33}, "dimensions"),
        ({"prompt_name": "none"}, "prompt_name"),
        ({"groups": [2]}, "groups"),
        ({"groups": [1], "weights": [float("nan")]}, "weights"),
        ({"weights": [1]}, "groups"),
        ({"context": ["a", "b"]}, "context"),
    ],
)
def test_bad_options_are_named(embedder: Embedder, options: Any, named: str) -> None:
    """A wrong or unknown option is refused by its name."""
    with pytest.raises(InputError) as caught:
        embedder.embed("alpha", **options)
    assert caught.value.param == named


def test_a_text_that_is_none_is_named(embedder: Embedder) -> None:
    """What is no text is refused before anything runs."""
    bad: Any = ["alpha", None]
    with pytest.raises(InputError, match=r"texts\[1\] must be a text, .*, not NoneType"):
        embedder.embed(bad)


def test_several_models(embedder: Embedder) -> None:
    """A call names its model; each has vectors of its own."""
    assert embedder.info().name == "first"
    first, second = embedder.embed("alpha"), embedder.embed("alpha", model="second")
    assert embedder.info("second").space != embedder.info("first").space
    assert not np.allclose(first, second)
    with pytest.raises(UnknownModelError):
        embedder.embed("alpha", model="third")


def test_a_recipe_is_a_model(embedder: Embedder) -> None:
    """Its vectors are those of its parts, joined; it ranks by their cosines, and says what it is."""
    texts = ["alpha", "red"]
    first, second = embedder.embed(texts), embedder.embed(texts, model="second")
    joined = np.hstack([first * np.sqrt(0.8), second * np.sqrt(0.2)])
    np.testing.assert_allclose(embedder.embed(texts, model="both"), joined, atol=1e-6)
    assert embedder.embed([], model="both", dtype="int8").shape == (0, 64)
    assert embedder.info("both").hidden_size == 64
    (ranked,) = embedder.rerank("alpha", ["red"], model="both")
    query, document = (
        embedder.embed("alpha", model="both", role="query"),
        embedder.embed("red", model="both", role="document"),
    )
    assert ranked.score == pytest.approx(query @ document, abs=1e-6)


def test_ranking(embedder: Embedder) -> None:
    """Documents are ranked by cosine, the best first, as their vectors say."""
    documents = ["red green", "alpha beta", "one two three"]
    ranked = embedder.rerank("alpha beta", documents)
    cosines = embedder.embed(documents) @ embedder.embed("alpha beta", role="query")
    assert [document.index for document in ranked] == np.argsort(-cosines).tolist()
    assert [document.score for document in ranked] == pytest.approx(
        np.sort(cosines)[::-1], abs=1e-5
    )
    assert len(embedder.rerank("alpha", documents, top_n=2)) == 2
    with pytest.raises(InputError, match="documents"):
        embedder.rerank("alpha", [])


async def test_it_works_where_an_event_loop_runs(embedder: Embedder) -> None:
    """Plain methods work in a notebook, whose loop is running; async ones leave it free, and from any loop."""
    plain = embedder.embed("alpha")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    vectors, ranked = await asyncio.gather(
        embedder.aembed(["alpha"] * 50), embedder.arerank("alpha", ["beta", "alpha"])
    )
    ticking.cancel()
    np.testing.assert_allclose(vectors[0], plain, atol=1e-5)
    assert ranked[0].index == 1
    assert ticks > 1
    other = await asyncio.to_thread(lambda: asyncio.run(embedder.aembed("alpha")))
    np.testing.assert_allclose(other, plain, atol=1e-5)


async def test_a_cancelled_call_ends(embedder: Embedder) -> None:
    """A caller that is cancelled gets away at once, and the next one is served."""
    call = asyncio.create_task(embedder.aembed(["alpha beta gamma"] * 20_000))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await embedder.aembed("alpha")).shape == (32,)


def test_a_closed_one_says_so(tmp_path: Path) -> None:
    """A closed embedder refuses calls; closing twice is harmless."""
    write_tiny_bert(tmp_path / "model")
    made = Embedder(str(tmp_path / "model"), cache_dir=tmp_path / "cache")
    assert made.count_tokens(["alpha", "alpha beta"]) == [3, 4]
    made.close()
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.embed("alpha")


def test_it_cannot_be_sent_to_another_process(embedder: Embedder) -> None:
    """Pickling says what to do instead."""
    with pytest.raises(TypeError, match="make one in each worker"):
        pickle.dumps(embedder)


def test_settings_are_named_as_they_were_given() -> None:
    """A wrong setting is named as a Python keyword, not as a flag."""
    with pytest.raises(ConfigError) as caught:
        Embedder("static", prot=1)
    assert caught.value.problems == ("prot: no such setting; did you mean port?",)


def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A library prints nothing; who sets `logging` up gets its events as text."""
    write_tiny_bert(tmp_path / "model")
    caplog.set_level(logging.INFO)
    Embedder(str(tmp_path / "model"), cache_dir=tmp_path / "cache").close()
    assert capfd.readouterr() == ("", "")


def test_a_fork_is_told(tmp_path: Path) -> None:
    """A fork of the process is told that the threads stayed behind, may make its own, and the parent goes on."""
    write_tiny_bert(tmp_path / "model")
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path / "model")]
    subprocess.run([*command, str(tmp_path / "cache")], check=True, timeout=120)


def test_importing_the_package_imports_nothing_else() -> None:
    """`import nestvec` brings no library, and the library brings no web server and no database."""
    script = (
        "import sys, nestvec; light = set(sys.modules); from nestvec import Embedder;"
        "print('numpy' in light, *(m in sys.modules for m in ('fastapi', 'uvicorn', 'sqlalchemy')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False"] * 4


@pytest.mark.model
def test_the_page_runs_as_printed(tmp_path: Path) -> None:
    """Each program of the page runs, and prints what its comments say."""
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(programs) == 3
    for number, program in enumerate(programs):
        file = tmp_path / f"program_{number}.py"
        file.write_text(program, "utf-8")
        done = subprocess.run(
            [sys.executable, str(file)], capture_output=True, text=True, check=True, timeout=200
        )
        expected = re.findall(r"print\(.*\)  # (.*)", program)
        assert done.stdout.splitlines()[: len(expected)] == expected
