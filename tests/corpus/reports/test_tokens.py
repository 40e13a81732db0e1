"""The report on tokens: parity, exactness, and tokens that were planted as untrained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.corpus.reports.frame import Figures, ReportData, Subject, Task
from nestvec.corpus.reports.kinds import tokens
from nestvec.corpus.reports.running import make_report
from nestvec.corpus.reports.table import REPORTS
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.export.graph.token_table import read_token_table
from safetensors.numpy import save_file

SIZE = 128


@pytest.fixture
def subject(tiny_folder: Path) -> Subject:
    """A model of which only the tokenizer is open."""
    tokenizer = Tokenizer(tiny_folder / "tokenizer.json", max_tokens=16, vocabulary_size=SIZE)
    return Subject.of_tokenizer("tiny", "space", tokenizer)


def measured(subject: Subject, data: ReportData) -> Figures:
    """Return what the report finds."""
    return make_report(REPORTS["tokens"], Task(data, subject)).measured


def test_parity_is_the_mean_ratio(subject: Subject) -> None:
    """Each pair counts alike: 2 / 1 and 3 / 3 tokens are 1.5 on average, with an interval around it."""
    pairs = [("alpha", "alpha beta"), ("one two three", "red green blue")]
    found = measured(subject, ReportData(pairs=pairs)).get(tokens.PARITY)
    assert found is not None
    assert (found.value, found.n) == (1.5, 2)
    assert found.low == 1.0
    assert found.high == 2.0


def test_exactness(subject: Subject) -> None:
    """Texts of known words come back to the same tokens."""
    figures = measured(subject, ReportData(texts=["alpha red", "one two"]))
    assert figures.value("texts whose tokens spell a text with the same tokens") == 1
    assert figures.value("tokens a text") == 2
    assert figures.value(tokens.SECONDS) > 0


def test_planted_untrained_tokens_are_found(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows beside the reserved ones that were planted are named, and no others."""
    random = np.random.default_rng(3)
    table = random.standard_normal((SIZE, 16)).astype(np.float32)
    corner = random.standard_normal(16).astype(np.float32)
    reserved, planted = list(range(100, 110)), [20, 21]
    for row in [*reserved, *planted]:
        table[row] = corner + 0.01 * random.standard_normal(16)
    # Two reserved rows that were trained after all: as many others come nearest.
    table[reserved[:2]] = random.standard_normal((2, 16))
    assert subject.tokenizer is not None
    names = subject.tokenizer.library.token_names(SIZE)
    marked = [
        f"[unused{row}]" if row in reserved else name.replace("unused", "spare")
        for row, name in enumerate(names)
    ]
    monkeypatch.setattr(
        type(subject.tokenizer.library), "token_names", lambda self, count: marked[:count]
    )
    with_table = replace(subject, token_table=lambda: table)
    result = make_report(REPORTS["tokens"], Task(ReportData(texts=["alpha"]), with_table))
    assert result.measured.value(tokens.RESERVED_ROWS) == 10
    assert result.measured.value(tokens.NEAR) == 8
    assert result.measured.value(tokens.SUSPECTS) == 2
    rows = result.measured.tables[-1].rows
    assert sorted(row[1] for row in rows) == planted
    assert any("mean little" in line for line in result.advice)


def test_tokens_that_no_text_gives(subject: Subject) -> None:
    """Every word of the tiny vocabulary is reached; ids of no token are not."""
    assert subject.tokenizer is not None
    names = subject.tokenizer.library.token_names(SIZE)
    is_reached = tokens.reached(subject.tokenizer, names, Task(ReportData(), subject))
    known = [row for row, name in enumerate(names) if name.isalpha()]
    assert is_reached[known].all()
    assert not is_reached[[row for row, name in enumerate(names) if not name]].any()


def test_a_report_that_needs_the_tokenizer_says_so(subject: Subject) -> None:
    """Over HTTP the tokenizer is on another machine."""
    elsewhere = replace(subject, tokenizer=None)
    with pytest.raises(FormatError, match="POST /v1/reports"):
        measured(elsewhere, ReportData(texts=["alpha"]))


def test_the_table_is_found_by_its_name(tmp_path: Path) -> None:
    """The first matrix of such a name with a row for each token is read; without one there is none."""
    table: FloatArray = np.ones((9, 4), np.float32)
    tensors = {
        "bert.embeddings.position_embeddings.weight": np.zeros((9, 4), np.float32),
        "bert.embeddings.word_embeddings.weight": table,
    }
    save_file(tensors, tmp_path / "model.safetensors")
    found = read_token_table(tmp_path, (), 8)
    assert found is not None
    np.testing.assert_array_equal(found, table[:8])
    assert read_token_table(tmp_path, (), 10) is None
    assert read_token_table(tmp_path / "nowhere", (), 8) is None
