"""`make bench-long`: texts of exact lengths, contests that outlive a side's failure, and the report."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.model_store.folder.model_folder import read_model_folder
from tokenizers import Tokenizer
from typing_extensions import override

from benchmarks.engines import Engine, Worker
from benchmarks.long import contest as contests
from benchmarks.long.contest import Clock, Contest, agreement_of
from benchmarks.long.loads import MODELS, Load, TextMaker, chosen_models, loads_of
from benchmarks.long.report import PAIR_COLUMNS, Report, start_row
from benchmarks.long.sides import Answer, Side, SideError, SideLostError, vectors_of
from benchmarks.models import TINY, write_model
from tests.support.tiny import write_json, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny ModernBERT with another model's WordPiece tokenizer, which cuts and pads."""
    source = tmp_path_factory.mktemp("source")
    write_tokenizer(source / "tokenizer.json")
    write_json(source / "tokenizer_config.json", {"model_max_length": 16})
    sizes = replace(TINY, max_tokens=8192, family="modernbert", pooling="cls")
    return write_model(sizes, tmp_path_factory.mktemp("models") / "tiny", tokenizer=source)


@pytest.fixture
def texts(folder: Path) -> TextMaker:
    """Return a maker of texts for the tiny tokenizer."""
    return TextMaker(Tokenizer.from_file(str(folder / "tokenizer.json")))


def test_texts_have_exactly_the_tokens_asked_for(folder: Path, texts: TextMaker) -> None:
    """Whatever the counter takes, and no two are alike."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made = [text for length in (12, 40, 700) for text in texts.texts(Load(30, length))]
    assert {len(tokenizer.encode(text).ids) for text in made} == {12, 40, 700}
    assert len(set(made)) == 90
    with pytest.raises(ValueError, match="no text has 2 tokens"):
        texts.text(2)


def test_loads_stay_within_the_model(texts: TextMaker) -> None:
    """Lengths beyond a model's limit are left out, and several texts at once are never longer than 2,048."""
    modernbert, *_, bert = MODELS
    assert [load.length for load in loads_of(modernbert) if load.texts == 1][-1] == 8192
    assert max(load.length for load in loads_of(modernbert) if load.texts > 1) == 2048
    assert loads_of(bert, [300, 4096]) == [Load(1, 300), Load(4, 300)]
    assert [model.name for model in chosen_models("bert-base")] == ["bert-base"]
    assert list(chosen_models("")) == list(MODELS)
    with pytest.raises(SystemExit, match="no model 'bert'"):
        list(chosen_models("bert"))


class FakeSide(Side):
    """A side that answers with the lengths of texts, in seconds that it was given, or fails.

    Args:
        name: Its name.
        seconds: Of its rounds.
        failure: What it raises on texts of more than 50 words.
    """

    def __init__(
        self, name: str, seconds: Sequence[float] = (1.0,), failure: BaseException | None = None
    ) -> None:
        self.name = name
        self.runs = False
        self.peak_mb = 1000.0
        self._seconds = list(seconds)
        self._failure = failure
        self._calls = 0

    @override
    def start(self) -> None:
        self.runs = True

    @override
    def stop(self) -> None:
        self.runs = False

    @override
    def embed(self, texts: Sequence[str], timeout_s: float) -> Answer:
        assert self.runs
        assert timeout_s > 0
        if self._failure and len(texts[0].split()) > 50:
            raise self._failure
        seconds = self._seconds[self._calls % len(self._seconds)]
        self._calls += 1
        self.peak_mb += 1
        return Answer(seconds, np.array([[1.0, len(text)] for text in texts], np.float32))

    @override
    def peak_rss_mb(self) -> float:
        return self.peak_mb

    @override
    def reset_peak_rss(self) -> None:
        self.peak_mb = 10.0


def contest(texts: TextMaker, *sides: Side) -> Contest:
    """Return a contest of the first side with all others."""
    pairs = [(sides[0].name, other.name) for other in sides[1:]]
    return Contest("tiny, fp32", "what it is", list(sides), pairs, texts)


LOADS = [Load(1, 30), Load(1, 150), Load(4, 30)]


@pytest.fixture
def warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm up with one text short enough for a side that fails on long ones."""
    monkeypatch.setattr(contests, "WARM_UP_TOKENS", (20,))


@pytest.mark.usefixtures("warm_up")
def test_the_best_round_counts(tmp_path: Path, texts: TextMaker) -> None:
    """Tokens a second are of the least time, the peak of memory that of the load, and the ratio above 1 if we win."""
    report = Report(tmp_path / "long.md")
    ours, peer = FakeSide("ours", [0.1, 0.5, 0.1, 0.1]), FakeSide("peer", [0.2, 0.3, 0.2])
    contest(texts, ours, peer).run([Load(1, 30)], 2, Clock(60), report)
    text = (tmp_path / "long.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| 1 × 30 "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == len(PAIR_COLUMNS)
    expected = ["1 × 30", "30", "ours", "300", "peer", "150", "**2.00**", "12 / 12", "1.000000"]
    assert cells == [*expected, "0e+00", "2"]
    assert not ours.runs
    assert not peer.runs


@pytest.mark.usefixtures("warm_up")
def test_a_side_that_fails_ends_nothing_else(tmp_path: Path, texts: TextMaker) -> None:
    """Who refuses a load stays for the next, who is lost is ended, and the others are compared to the end."""
    refusing = FakeSide("refusing", failure=SideError("413 too long"))
    lost = FakeSide("lost", failure=SideLostError("ended with status 9"))
    report = Report(tmp_path / "long.md")
    contest(texts, FakeSide("ours"), refusing, lost, FakeSide("peer")).run(
        LOADS, 1, Clock(60), report
    )
    text = (tmp_path / "long.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| 1 ×", "| 4 ×"))]
    assert [row[4] for row in rows if row[0] == "| 1 × 150"] == ["peer"]
    assert [row[4] for row in rows if row[0] == "| 4 × 30"] == ["refusing", "peer"]
    assert "- refusing, 1 × 150: 413 too long\n" in text
    assert "- lost, 1 × 150: ended with status 9; left out from here" in text


@pytest.mark.usefixtures("warm_up")
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("a mistake of ours")])
def test_every_side_is_ended_whatever_happens(
    tmp_path: Path, texts: TextMaker, failure: BaseException
) -> None:
    """An interrupt or an error of the benchmark itself leaves no process behind; what was measured is written."""
    sides = [FakeSide("ours"), FakeSide("peer", failure=failure)]
    with pytest.raises(type(failure)):
        contest(texts, *sides).run(LOADS, 1, Clock(60), Report(tmp_path / "long.md"))
    assert not any(side.runs for side in sides)
    assert "| 1 × 30 | 30 | ours |" in (tmp_path / "long.md").read_text()


@pytest.mark.usefixtures("warm_up")
def test_a_run_ends_in_time(
    tmp_path: Path, texts: TextMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is no time for is named, and a round that takes long is not repeated."""
    contest(texts, FakeSide("ours"), FakeSide("peer")).run(
        LOADS, 1, Clock(0), Report(tmp_path / "late.md")
    )
    assert "- 4 × 30: left out, the run's time was over" in (tmp_path / "late.md").read_text()
    monkeypatch.setattr(contests, "MAX_REPEATED_TOKENS", 100)
    contest(texts, FakeSide("ours"), FakeSide("peer")).run(
        LOADS, 3, Clock(60), Report(tmp_path / "long.md")
    )
    rows = [r for r in (tmp_path / "long.md").read_text().splitlines() if "| ours |" in r]
    assert [row.strip("| ").split(" | ")[-1] for row in rows] == ["3", "1", "3"]


def test_a_part_measured_anew_leaves_the_others(tmp_path: Path) -> None:
    """Sections that a run does not measure stay as they were, those that it does are replaced."""
    path = tmp_path / "long.md"
    for title, seconds in (("first", 1.0), ("second", 2.0), ("first", 3.0)):
        report = Report(path)
        section = report.begin(title, ("side", "precision"), "what it is")
        report.add_row(section, start_row("ours", "int8", [(seconds, 100), (1.0, 50)]))
        report.add_note(section, f"a note of {seconds}")
    text = path.read_text()
    assert text.count("# Long texts\n") == 1
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## first",
        "## second",
    ]
    assert "| ours | int8 | 3.0 | 100 | 1.0 | 50 |" in text
    assert "| ours | int8 | 2.0 | 100 | 1.0 | 50 |" in text
    assert "| ours | int8 | 1.0 |" not in text
    assert "a note of 1.0" not in text


def test_vectors_come_in_the_order_of_the_texts() -> None:
    """Servers may answer in any order, and say which vector is whose."""
    body = b'{"data":[{"index":1,"embedding":"AAAAQA=="},{"index":0,"embedding":"AACAPw=="}]}'
    assert vectors_of(body).tolist() == [[1.0], [2.0]]


def test_agreement_is_of_the_worst_text() -> None:
    """One text with another vector shows, however many agree."""
    first = np.eye(3, dtype=np.float32)
    second = first.copy()
    second[2] = [0.0, 0.6, 0.8]
    agreement = agreement_of(first, second)
    assert agreement.min_cosine == pytest.approx(0.8)
    assert agreement.max_difference == pytest.approx(0.6)


def test_a_worker_that_hangs_is_killed() -> None:
    """The others need not wait for it."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        worker = Worker(Engine("hanging", "script", "fp32", ()), process)
        with pytest.raises(SystemExit, match="hanging ended with status -9"):
            worker.ask(["text"], {}, timeout_s=0.2)
        worker.stop()


def test_models_take_another_tokenizer(folder: Path) -> None:
    """It neither cuts nor pads any more, the model's own length holds, and the folder is one that is served."""
    made = read_model_folder(folder)
    assert made.architecture == "modernbert"
    assert made.max_tokens == 8192
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
