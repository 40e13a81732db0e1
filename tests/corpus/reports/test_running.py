"""The frame: what a report needs is checked, models stand side by side, an interrupted report resumes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from nestvec.corpus.reports import render
from nestvec.corpus.reports.frame import Figures, Need, Report, ReportData, ReportTable, Task
from nestvec.corpus.reports.kept_vectors import CHUNK_TEXTS, KeptVectors
from nestvec.corpus.reports.running import check_data, make_report, side_by_side
from nestvec.corpus.reports.statistics.resampling import count_figure, mean_figure
from nestvec.corpus.reports.table import REPORTS, find_report
from nestvec.engine.types import FloatArray
from nestvec.errors import InputError

from tests.corpus.reports.fake_subjects import bag_of_words, noisy, sentences, subject

WORDS = [f"word{number}" for number in range(60)]
EVIL = "<b>|evil|</b>"


def measure(task: Task) -> Figures:
    """Return the first value of each text's vector."""
    values = task.subject.embed(task.data.texts)[:, 0].astype(np.float64)
    table = ReportTable("a table", ("index", "name"), [[0, EVIL]])
    return Figures(
        [mean_figure("first value", values, unit="share"), count_figure("texts", len(values), 9)],
        [table],
        ["a note"],
    )


REPORT = Report(
    "first",
    "What the first value is.",
    measure,
    lambda figures: [f"it is {figures.value('first value'):.2f}"],
    needs=(Need.TEXTS,),
    takes=(Need.LABELS,),
    min_items={Need.TEXTS: 3},
    max_items=50,
)


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (ReportData(), "texts", "'texts' is missing"),
        (ReportData(texts=["a", "b"]), "texts", "at least 3"),
        (ReportData(texts=["a"] * 51), "texts", "at most 50"),
        (ReportData(texts=["a"] * 3, labels=["x"]), "labels", "1 entries for 3 texts"),
        (ReportData(texts=["a"] * 3, pairs=[("a", "b")]), "pairs", "takes no 'pairs'"),
    ],
)
def test_what_a_report_cannot_be_made_of_is_refused(
    data: ReportData, field: str, words: str
) -> None:
    """What is missing, too little, too much or not wanted is refused by its field."""
    with pytest.raises(InputError, match=words) as caught:
        check_data(REPORT, data)
    assert caught.value.param == field


def test_names_and_needs_of_the_table() -> None:
    """Reports are found by name; those without needs have probes, and an unknown name is told all names."""
    assert find_report("drift").needs == (Need.TEXTS, Need.REFERENCE)
    with pytest.raises(InputError, match="tokens, robustness, quality"):
        find_report("moods")
    assert all(
        report.name == name and report.title.endswith(".") for name, report in REPORTS.items()
    )
    task = Task(ReportData(texts=sentences(40, WORDS, 1)), subject())
    with pytest.raises(InputError, match="about two models"):
        make_report(REPORTS["compare"], task)


def test_two_models_stand_side_by_side() -> None:
    """A planted difference of two models is found with its sign, and none where there is none."""
    texts = sentences(50, WORDS, 2)

    def shifted(texts: Sequence[str], role: str | None = None) -> FloatArray:
        vectors = bag_of_words(texts, role)
        return vectors + np.float32(0.2)

    results = [
        make_report(REPORT, Task(ReportData(texts=texts), subject(embed, name)))
        for embed, name in ((bag_of_words, "a"), (shifted, "b"), (bag_of_words, "c"))
    ]
    row, counts = side_by_side(results)
    better, same = row["differences"]
    assert better["value"] == pytest.approx(0.2, abs=1e-4)
    assert better["low"] <= better["value"] <= better["high"]
    assert better["p"] == better["p_adjusted"] / 2 == 0.0005
    assert (same["value"], same["p_adjusted"]) == (0, 1)
    assert counts["differences"] == [None, None]
    page = render.page(results[0].as_json(), [row, counts], ["a", "b", "c"])
    assert "b − a (95%, p)" in page
    assert "+0.2 [0.2 to 0.2], p 0.001" in page


def test_a_report_is_written_as_json_markdown_and_a_page() -> None:
    """All three hold figures, advice, tables and notes; what a table says cannot become markup."""
    result = make_report(REPORT, Task(ReportData(texts=sentences(9, WORDS, 3)), subject()))
    content = json.loads(json.dumps(result.as_json()))
    first = content["figures"][0]
    assert first["low"] <= first["value"] <= first["high"]
    assert (first["n"], content["model"], content["advice"][0][:5]) == (9, "fake", "it is")
    page, text = render.page(content), render.markdown(content)
    for written in (page, text):
        assert "first value (share)" in written
        assert content["advice"][0] in written
        assert "a note" in written
    assert EVIL not in page
    assert "&lt;b&gt;|evil|&lt;/b&gt;" in page
    assert "\\|evil\\|" in text
    assert "<svg" in page
    assert "<script" not in page


def test_an_interrupted_report_resumes(tmp_path: Path) -> None:
    """Vectors of the chunks that were done are not computed again; those of another model or of other texts are."""
    texts = [f"text {number}" for number in range(2 * CHUNK_TEXTS + 5)]
    embedded: list[int] = []

    class StoppedError(Exception):
        """The user has pressed Ctrl-C."""

    def until(count: int) -> FloatArray:
        raise StoppedError

    def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
        chunk = texts
        embedded.append(len(chunk))
        if len(embedded) == 2:
            until(2)
        return bag_of_words(chunk, role)

    found: list[int] = []
    folder = tmp_path / "kept"
    kept = KeptVectors(folder)
    resumed = kept.around(embed, "model space", found.append)
    told: list[str] = []
    with pytest.raises(StoppedError), kept.until_whole(told.append):
        resumed(texts)
    assert told == [
        f"interrupted; 1,024 vectors are kept in {folder}: the same command goes on from there"
    ]
    vectors = resumed(texts)
    assert found == [CHUNK_TEXTS]
    assert embedded == [CHUNK_TEXTS, CHUNK_TEXTS, CHUNK_TEXTS, 5]
    np.testing.assert_array_equal(vectors[[0, -1]], bag_of_words([texts[0], texts[-1]]))
    kept.around(embed, "another model", found.append)(texts[:3])
    assert embedded[-1] == 3
    broken = next(folder.glob("*.npy"))
    broken.write_bytes(broken.read_bytes()[:100])
    np.testing.assert_array_equal(resumed(texts), vectors)
    with kept.until_whole(told.append):
        resumed(texts)
    assert not folder.exists()
    assert len(told) == 1
    with pytest.raises(StoppedError), kept.until_whole(told.append):
        until(0)
    assert told[1] == "interrupted; no vectors are kept yet, as they are by 1,024 texts"


def test_reports_repeat_with_their_seed() -> None:
    """The same seed gives the same figures, whatever came before."""
    data = ReportData(texts=sentences(60, WORDS, 4))
    task = Task(data, subject(noisy(bag_of_words, 0.5)))
    first, second = (make_report(REPORTS["robustness"], task).as_json() for _ in range(2))
    assert first["figures"] == second["figures"]
