"""How well a model's tokenizer suits texts, and which tokens of its vocabulary were never trained."""

import re
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import (
    MAX_ROWS,
    Figure,
    Figures,
    Need,
    Report,
    ReportTable,
    Subject,
    Task,
)
from nestvec.corpus.reports.statistics.blocks import blocks
from nestvec.corpus.reports.statistics.resampling import count_figure, mean_figure
from nestvec.corpus.reports.statistics.token_figures import advice, as_rows, measure_texts
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.system.unicode import replace_lone_surrogates

# Rows that a vocabulary keeps for later, by the names that tokenizers give them.
RESERVED: Final = re.compile(
    r"\[unused\d+\]|<unused_?\d+>|<\|?reserved.*\|?>|<extra_id_\d+>|madeupword\d+|<\|unused.*\|>",
    re.IGNORECASE,
)
# What may stand before a token that only continues a word. Tokenizers keep these apart from what follows.
ANCHORS: Final = ("", "0", "q", "z", "7", "x", " ", "a", "-")
CONTINUATION: Final = "##"
ROW_BLOCK: Final = 4096
TEXT_BLOCK: Final = 1024
PARITY: Final = "tokens of the second text for each of the first"
MAX_PARITY: Final = 1.5
UNREACHED: Final = "tokens that no text gives"
# WordPiece has continuations of marks and signs that it always cuts off, so no text gives them.
UNREACHED_STARTS: Final = "of these, tokens that continue no word"
RESERVED_ROWS: Final = "reserved rows"
NEAR: Final = "reserved rows among as many nearest to their centroid"
SUSPECTS: Final = "tokens as near to it that are not reserved"
SECONDS: Final = "seconds to tokenize a megabyte"
MEGABYTE: Final = 1e6
GROUPS: Final = "by language or script"


def measure(task: Task) -> Figures:
    """Measure texts by language, parity of pairs, and the vocabulary.

    Raises:
        FormatError: The tokenizer is on another machine.
    """
    tokenizer = _tokenizer(task)
    of_texts = measure_texts_alone(task)
    figures, tables = list(of_texts.figures), list(of_texts.tables)
    if task.data.pairs:
        figures.append(_parity(task, tokenizer))
    vocabulary, suspects = _vocabulary(task.subject, tokenizer, task)
    if suspects:
        title = "tokens that look untrained, nearest to the reserved rows first"
        tables.append(ReportTable(title, ("token", "id", "distance", "norm"), suspects))
    return Figures([*figures, *vocabulary], tables, of_texts.notes)


def measure_texts_alone(task: Task) -> Figures:
    """Measure what needs nothing but texts and the tokenizer; the notes are what these advise.

    Raises:
        FormatError: The tokenizer is on another machine.
    """
    tokenizer, data = _tokenizer(task), task.data
    if not data.texts:
        return Figures([])
    labels = data.labels or [""] * len(data.texts)
    groups = measure_texts(zip(labels, data.texts, strict=True), tokenizer)
    rows = as_rows(groups, tokenizer)
    table = ReportTable(GROUPS, list(rows[0]), [list(row.values()) for row in rows])
    return Figures(_text_figures(data.texts, tokenizer, task), [table], advice(groups, tokenizer))


def advise(figures: Figures) -> list[str]:
    """Repeat what the texts' figures advise, then what parity and vocabulary do."""
    lines = list(figures.notes)
    parity = figures.get(PARITY)
    if parity is not None and parity.value > MAX_PARITY:
        lines.append(
            f"the second language takes {parity.value:.2f} times the tokens of the first: texts of it cost so much "
            "more and are cut so much earlier"
        )
    suspects = figures.value(SUSPECTS)
    if suspects:
        lines.append(
            f"{suspects:.0f} tokens lie as near to the reserved rows as these themselves: texts of them have vectors "
            "that mean little; the table names the first"
        )
    return lines


def _tokenizer(task: Task) -> Tokenizer:
    if task.subject.tokenizer is None:
        raise FormatError(
            "this report reads the tokenizer itself: run it in process (without --url), or POST /v1/reports"
        )
    return task.subject.tokenizer


def _text_figures(texts: Sequence[str], tokenizer: Tokenizer, task: Task) -> list[Figure]:
    """Return tokens a text, the share of texts whose tokens spell the text that gives them again, and what it takes."""
    lengths: list[int] = []
    seconds: list[float] = []
    is_exact: list[bool] = []
    for block in blocks(texts, TEXT_BLOCK):
        task.check()
        started = time.perf_counter()
        encoded = _encode(tokenizer, block)
        took_s = time.perf_counter() - started
        size_bytes = sum(len(text.encode("utf-8", "replace")) for text in block)
        seconds.append(took_s / max(1, size_bytes) * MEGABYTE)
        lengths += map(len, encoded)
        spelled = [_spelled(tokenizer, ids) for ids in encoded]
        again = _encode(tokenizer, spelled)
        is_exact += [first == second for first, second in zip(encoded, again, strict=True)]
    return [
        mean_figure("tokens a text", lengths, unit="tokens"),
        mean_figure(
            "texts whose tokens spell a text with the same tokens",
            np.array(is_exact, np.float64),
            unit="share",
            better="higher",
        ),
        mean_figure(SECONDS, seconds, unit="s", better="lower"),
    ]


def _spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of ids, as plain as the tokenizer can write it."""
    plain = tokenizer.library.decode_plainly(ids)
    return tokenizer.decode(ids) if plain is None and ids else plain or ""


def _parity(task: Task, tokenizer: Tokenizer) -> Figure:
    ratios: list[float] = []
    for block in blocks(task.data.pairs, TEXT_BLOCK):
        task.check()
        counts = [list(map(len, _encode(tokenizer, side))) for side in zip(*block, strict=True)]
        ratios += [max(1, b) / max(1, a) for a, b in zip(*counts, strict=True)]
    return mean_figure(PARITY, ratios, better="lower")


def _vocabulary(
    subject: Subject, tokenizer: Tokenizer, task: Task
) -> tuple[list[Figure], list[list[str | int | float]]]:
    """Return what the vocabulary is like, and its rows that look untrained."""
    names = tokenizer.library.token_names(tokenizer.vocabulary_size)
    size = len(names)
    is_reserved = np.array([RESERVED.fullmatch(name) is not None for name in names])
    is_reached = reached(tokenizer, names, task)
    starts_word = np.array([not name.startswith(CONTINUATION) for name in names])
    figures = [
        count_figure(UNREACHED, int((~is_reached).sum()), size),
        count_figure(UNREACHED_STARTS, int((~is_reached & starts_word).sum()), size),
        count_figure(RESERVED_ROWS, int(is_reserved.sum()), size),
    ]
    table = None if subject.token_table is None else subject.token_table()
    marked = is_reserved if is_reserved.any() else ~is_reached
    if table is None or not marked.any() or marked.all():
        return figures, []
    table = table[:size]
    distances, norms = distances_to_centroid(table, marked[: len(table)])
    count = int(marked.sum())
    nearest = np.argsort(distances, kind="stable")[:count]
    suspects = [row for row in nearest.tolist() if not marked[row]]
    figures += [
        mean_figure("norm of reserved rows", norms[marked]),
        mean_figure("norm of other rows", norms[~marked]),
        count_figure(NEAR, count - len(suspects), count),
        count_figure(SUSPECTS, len(suspects), size),
    ]
    rows: list[list[str | int | float]] = [
        [names[row], row, float(distances[row]), float(norms[row])] for row in suspects[:MAX_ROWS]
    ]
    return figures, rows


def reached(tokenizer: Tokenizer, names: Sequence[str], task: Task) -> NDArray[np.bool_]:
    """Return for each token whether some text has it, `[V]`: its own spelling, or that behind another character.

    Source: Land and Bartolo, "Fishing for Magikarp" (arXiv:2405.05417), whose first check is that encoding a token's
    text gives the token.
    """
    is_reached = np.zeros(len(names), bool)
    for anchor in ANCHORS:
        left = np.flatnonzero(~is_reached).tolist()
        for block in blocks(left, ROW_BLOCK):
            task.check()
            spellings = [anchor + _spelling(tokenizer, names[row], row) for row in block]
            encoded = _encode(tokenizer, spellings)
            for row, ids in zip(block, encoded, strict=True):
                is_reached[row] = row in ids
    return is_reached


def distances_to_centroid(
    table: FloatArray, marked: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cosine distance of each row to the centroid of the marked ones, and its norm, both `[V]`."""
    centroid = table[marked].astype(np.float64).mean(axis=0)
    centroid /= max(float(np.linalg.norm(centroid)), 1e-12)
    distances, norms = np.empty(len(table)), np.empty(len(table))
    for start in range(0, len(table), ROW_BLOCK):
        rows = table[start : start + ROW_BLOCK].astype(np.float64)
        length = np.linalg.norm(rows, axis=1)
        norms[start : start + ROW_BLOCK] = length
        distances[start : start + ROW_BLOCK] = 1 - rows @ centroid / np.maximum(length, 1e-12)
    return distances, norms


def _spelling(tokenizer: Tokenizer, name: str, row: int) -> str:
    """Return the text that a token stands for."""
    if name.startswith(CONTINUATION) and len(name) > len(CONTINUATION):
        return name.removeprefix(CONTINUATION)
    return tokenizer.decode([row], skips_special_tokens=False) or name


def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [
        encoding.ids
        for encoding in tokenizer.library.encode_batch_fast(
            list(map(replace_lone_surrogates, texts)), add_special_tokens=False
        )
    ]


REPORT: Final = Report(
    name="tokens",
    title="How the tokenizer suits these texts, and which tokens were never trained.",
    measure=measure,
    advise=advise,
    needs_one_of=(Need.TEXTS, Need.PAIRS),
    takes=(Need.LABELS,),
    source=(
        "unknown tokens, tokens a word and whole words (arXiv:2402.18376, arXiv:2502.07057), Rényi efficiency of order "
        "2.5 (arXiv:2306.16842), untrained tokens (arXiv:2405.05417), parity (arXiv:2305.15425)"
    ),
)
