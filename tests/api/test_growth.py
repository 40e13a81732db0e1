"""Four times as much of a caller's size takes about four times the time, in every function that goes through it.

Times are those of the process, since tokenizers work in threads, and the least of several, so that a busy machine
changes little. What grows with the square takes sixteen times, and the bound is ten.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from nestvec.api.dialects.tensors import read_tensors
from nestvec.api.requests.fields import parse_inputs, parse_mixed_inputs
from nestvec.api.routes.rescore import parse_stored
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.text.documents import encode_chunks, encode_split, encode_windows
from nestvec.engine.text.echo import encode_echo
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.token_report import count_tokens, count_unusual, describe_tokens
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.windows import window_bounds, window_weights
from nestvec.engine.types import Truncation
from nestvec.engine.vectors.attribution import contributions
from nestvec.engine.vectors.token_vectors import max_sim

from tests.support.tiny import CONFIG, write_tokenizer

MAX_GROWTH = 10.0
TRIES = 5
MARKDOWN = "# Alpha\n\nbeta *gamma* [red](blue). The `one` two.\n\n- alpha\n- beta\n\n"
WORDS = "alpha beta gamma, redgreen. "
END = TokenizeOptions(Truncation.END)
WINDOWS = TokenizeOptions(Truncation.WINDOWS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tiny tokenizer of inputs of 256 tokens."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(file)
    return Tokenizer(file, max_tokens=256, vocabulary_size=CONFIG["vocab_size"])


def go(count: int) -> None:
    """Refuse no count."""


@dataclass(frozen=True)
class Grows:
    """A function of something of a caller's size.

    Attributes:
        name: What it does.
        size: How much of it the smaller run has.
        prepare: Makes its argument of a size, untimed, and returns what is timed.
    """

    name: str
    size: int
    prepare: Callable[[Tokenizer, int], Callable[[], object]]


def splitting(kind: SplitterKind, text: str) -> Callable[[Tokenizer, int], Callable[[], object]]:
    """Return what prepares a document of so many copies of a text to be cut."""

    def prepare(_: Tokenizer, size: int) -> Callable[[], object]:
        document = text * size
        starts = [at for at in range(len(document)) if document[at - 1 : at] in ("", " ")]
        tokens = 8 if kind is SplitterKind.TOKENS else 0
        # Where the topics of a document end is found by its sentences' vectors, before it is cut.
        edges = tuple(range(6, len(document), 6)) if kind is SplitterKind.SEMANTIC else None
        return lambda: Splitter(kind, tokens, edges=edges).spans(document, starts)

    return prepare


def texts(size: int) -> list[str]:
    """Return so many texts."""
    return [f"{WORDS}{number}" for number in range(size)]


def rows(size: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return so many rows of noise."""
    return np.random.default_rng(0).standard_normal((size, 16)).astype(np.float32)


def of_text() -> Iterator[Grows]:
    """Yield what goes through one long text, or through many."""
    for kind, text in itertools.product(SplitterKind, (WORDS, MARKDOWN)):
        yield Grows(f"{kind} of {text[:5]!r}", 60, splitting(kind, text))
    chunked = tuple((n, n + 6) for n in range(0, 6, 6))
    yield Grows(
        "spans", 800, lambda t, n: lambda: encode_split(t, "alpha " * n, chunked, WINDOWS, 0)
    )
    yield Grows("chunks", 400, lambda t, n: lambda: encode_chunks(t, texts(n), WINDOWS))
    yield Grows("windows", 1000, lambda t, n: lambda: encode_windows(t, [WORDS * n], WINDOWS))
    yield Grows("cut texts", 400, lambda t, n: lambda: t.encode_texts(texts(n), END))
    yield Grows("a cut text", 4000, lambda t, n: lambda: t.encode_texts([WORDS * n], END))
    start = TokenizeOptions(Truncation.START)
    yield Grows("its end", 1500, lambda t, n: lambda: t.encode_texts([WORDS * n], start))
    echo = ("say : ", " again : ")
    yield Grows("echo", 80, lambda t, n: lambda: encode_echo(t, texts(n), END, echo))
    yield Grows(
        "described",
        200,
        lambda t, n: lambda: list(describe_tokens(t, WORDS * n, adds_special_tokens=True)),
    )
    yield Grows("counted", 150, lambda t, n: lambda: count_tokens(t, [WORDS * n]))
    yield Grows(
        "window weights", 40_000, lambda _, n: lambda: window_weights(window_bounds(n, 254))
    )


def of_values() -> Iterator[Grows]:
    """Yield what goes through many values."""
    yield Grows("ids", 20_000, lambda _, n: lambda: parse_inputs([5.0] * n, check_count=go))
    yield Grows(
        "mixed inputs",
        600,
        lambda _, n: lambda: parse_mixed_inputs({"x": ["a", [5] * 9] * n}, "x", check_count=go),
    )
    yield Grows("unusual ids", 1000, lambda t, n: lambda: count_unusual(t, [[5] * 8] * n))
    yield Grows("decoded", 8000, lambda t, n: lambda: t.decode([5] * n))
    yield Grows(
        "stored vectors",
        300,
        lambda _, n: lambda: parse_stored([[0.5] * 64] * n, OutputDtype.FLOAT32, 64),
    )

    def tensor(_: Tokenizer, size: int) -> Callable[[], object]:
        raw = (b"\x05\0\0\0alpha") * size
        item = {"name": "text", "datatype": "BYTES", "shape": [size]}
        header = {"inputs": [{**item, "parameters": {"binary_data_size": len(raw)}}]}
        return lambda: read_tensors(header, raw, check_count=go)

    yield Grows("texts of a tensor", 3000, tensor)
    yield Grows("late interaction", 500, lambda _, n: partial_max_sim(n))
    few = rows(40)
    yield Grows("explained", 4000, lambda _, n: lambda: contributions(rows(n), few, "mean"))


def partial_max_sim(documents: int) -> Callable[[], object]:
    """Return what scores so many documents."""
    query, document = rows(20), rows(30)
    return lambda: max_sim(query, [document] * documents)


def least_s(work: Callable[[], object], runs: int) -> float:
    """Return the least time of the process that some work takes."""
    times = []
    for _ in range(runs):
        began_s = time.process_time()
        work()
        times.append(time.process_time() - began_s)
    return min(times)


@pytest.mark.parametrize("grows", [*of_text(), *of_values()], ids=lambda grows: grows.name)
def test_time_grows_as_sizes_do(tokenizer: Tokenizer, grows: Grows) -> None:
    """Nothing that callers send more of costs the square of it."""
    small = grows.prepare(tokenizer, grows.size)
    large = grows.prepare(tokenizer, 4 * grows.size)
    small()  # patterns, tables and memory are there
    # What grows as the square does so at every try; a busy machine, whose caches others use, does not stay so.
    growths = (least_s(large, 4) / max(least_s(small, 4), 5e-4) for _ in range(TRIES))
    assert any(growth < MAX_GROWTH for growth in growths)
