"""Reports on planted truths: each finds what was planted, and does not find what is not there."""

from collections.abc import Sequence

import numpy as np
import pytest
from nestvec.corpus.reports.frame import Figures, ReportData, Task
from nestvec.corpus.reports.kinds import bias, drift, outliers, robustness
from nestvec.corpus.reports.kinds.outliers import robust_deviations
from nestvec.corpus.reports.probes import read_probes
from nestvec.corpus.reports.running import ReportResult, make_report
from nestvec.corpus.reports.statistics.perturbation import CHANGES, HOMOGLYPHS, changed
from nestvec.corpus.reports.table import REPORTS
from nestvec.engine.types import FloatArray
from nestvec.errors import InputError

from tests.corpus.reports.fake_subjects import (
    WIDTH,
    bag_of_words,
    direction,
    noisy,
    of_table,
    sentences,
    subject,
    unit,
)

WORDS = [f"word{number}" for number in range(60)]
OTHERS = [f"other{number}" for number in range(60)]


def made(name: str, data: ReportData, embed: object = bag_of_words, seed: int = 7) -> ReportResult:
    """Make a report of a fake model."""
    return make_report(REPORTS[name], Task(data, subject(embed), seed=seed))  # type: ignore[arg-type] # any embedder


def test_drift_that_is_there_is_found() -> None:
    """Texts of which half are of another field are told from the reference, and these lie farthest."""
    reference = sentences(120, WORDS, 1)
    texts = sentences(60, WORDS, 2) + sentences(60, OTHERS, 3)
    result = made("drift", ReportData(texts=texts, reference=reference))
    found = result.measured.get(drift.DISTANCE)
    assert found is not None
    assert found.p == 1 / (1 + drift.PERMUTATIONS)
    assert len(result.advice) == 1
    farthest = [row[0] for row in result.measured.tables[0].rows]
    assert all(isinstance(index, int) and index >= 60 for index in farthest)


def test_drift_that_is_absent_is_not_found() -> None:
    """Halves of one population are told apart as rarely as the level says: at 0.1 some 10 of 100 times."""
    vectors = unit(
        np.random.default_rng(5).standard_normal((100, 40, 8)).reshape(-1, 8).astype(np.float32)
    )
    probabilities = [
        drift.energy_test(part[:20], part[20:], seed)[1]
        for seed, part in enumerate(vectors.reshape(100, 40, 8))
    ]
    # Within 10 ± 3 standard deviations of a binomial; at 0.01 at most four of a hundred.
    assert 1 <= sum(p <= 0.1 for p in probabilities) <= 19
    assert sum(p <= drift.ALARM_P for p in probabilities) <= 4


def test_the_energy_distance_is_that_of_plain_loops() -> None:
    """The quadratic form equals means over all pairs."""
    random = np.random.default_rng(1)
    first, second = (unit(random.standard_normal((n, 6)).astype(np.float32)) for n in (7, 9))

    def mean(a: FloatArray, b: FloatArray) -> float:
        return float(np.mean([[np.linalg.norm(x - y) for y in b] for x in a]))

    expected = 2 * mean(first, second) - mean(first, first) - mean(second, second)
    assert drift.energy_test(first, second, 0)[0] == pytest.approx(expected, abs=1e-5)


def test_planted_look_alikes_are_found() -> None:
    """Words with a look-alike letter and invisible characters are counted; whole words of another script are not."""
    texts = sentences(40, WORDS, 4)
    clean = made(
        "robustness", ReportData(texts=[*texts, "привет мир", "Αθήνα and Москва", "co-op"])
    )
    assert clean.measured.value(robustness.LOOK_ALIKES) == 0
    assert clean.measured.value(robustness.INVISIBLE) == 0
    planted = ["p\u0430ypal account", "bank\u200b account", "\u0455ecure", "soft\u00adhyphen"]
    found = made("robustness", ReportData(texts=[*texts, *planted]))
    assert found.measured.value(robustness.LOOK_ALIKES) == 2
    assert found.measured.value(robustness.INVISIBLE) == 2
    assert any("look-alike" in line for line in found.advice)


def test_a_model_that_folds_case_is_told_from_one_that_does_not_fold_letters() -> None:
    """Case costs the fake model nothing, changed letters cost it everything they touch."""
    pairs = [(text, text) for text in sentences(60, WORDS, 6)]
    measured = made("robustness", ReportData(pairs=pairs)).measured
    assert measured.value("case 30%: cosine to the unchanged") == pytest.approx(1)
    assert measured.value("found first, unchanged") == 1
    by_share = [
        measured.value(f"letters swapped {share:.0%}: cosine to the unchanged")
        for share in robustness.SHARES
    ]
    assert by_share == sorted(by_share, reverse=True)
    assert by_share[-1] < 0.6


@pytest.mark.parametrize("name", CHANGES)
def test_changes_touch_the_share_that_they_say(name: str) -> None:
    """A change of 30% touches about 30% of its places, one of none touches nothing, and letters stay the same set."""
    texts = ["a scientific experiment explores possible copies"] * 40
    assert changed(texts, CHANGES[name], 0.0, 1) == texts
    altered = changed(texts, CHANGES[name], 0.3, 1)
    assert altered == changed(texts, CHANGES[name], 0.3, 1)
    assert len(set(altered)) > 20
    if name == "letters swapped":
        assert all(sorted(a) == sorted(b) for a, b in zip(texts, altered, strict=True))
        first = [text.split() for text in altered]
        assert all(word[0] == "e" and word[-1] == "t" for _, _, word, *_ in first)
    elif name == "look-alike letters":
        places = sum(letter in HOMOGLYPHS for letter in "".join(texts))
        turned = sum(a != b for a, b in zip("".join(texts), "".join(altered), strict=True))
        assert turned / places == pytest.approx(0.3, abs=0.05)


def test_planted_copies_and_outliers_are_found() -> None:
    """Exact copies by their letters, near ones by their vectors, and a text of another field; nothing else."""
    texts = sentences(120, WORDS, 8, length=12)
    clean = made("outliers", ReportData(texts=texts)).measured
    assert clean.value(outliers.EXACT) == clean.value(outliers.NEAR) == 0
    planted = [*texts, f"  {texts[3].upper()}", f"{texts[5]} {texts[5]} {texts[5]} word1"]
    planted.append(" ".join(OTHERS[:12]))
    found = made("outliers", ReportData(texts=planted))
    assert found.measured.value(outliers.EXACT) == 1
    assert found.measured.value(outliers.NEAR) == 1
    tables = {table.title: table.rows for table in found.measured.tables}
    assert tables["nearly alike"][0][:2] == [121, 5]
    assert tables["unlike all others"][0][0] == 122
    assert any("copies" in line for line in found.advice)


def test_outliers_that_are_none_are_found_as_rarely_as_the_report_says() -> None:
    """One in 4,300 of normally distributed similarities; and planted ones change that of the others little."""
    similarity = np.random.default_rng(3).normal(0.5, 0.07, 430_000)
    found = robust_deviations(similarity) < -outliers.OUTLIER_DEVIATIONS
    # 100 are expected: three standard deviations of a count.
    assert 70 < found.sum() < 130
    similarity[:4300] = -0.5
    planted = robust_deviations(similarity) < -outliers.OUTLIER_DEVIATIONS
    assert planted[:4300].all()
    assert 50 < planted[4300:].sum() < 130


def test_copies_are_found_by_blocks_as_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of several earlier texts is named, whatever the size of blocks; wide vectors may be held in float16."""
    texts = sentences(50, WORDS, 15, length=12)
    planted = [*texts, f"{texts[5]} {texts[5]}", f"{texts[5]} {texts[5]} {texts[5]}", texts[40]]
    whole = made("outliers", ReportData(texts=planted)).measured
    monkeypatch.setattr(outliers, "SQUARE_ROWS", 7)
    monkeypatch.setattr(outliers, "MAX_FLOAT32_BYTES", 0)
    parts = made("outliers", ReportData(texts=planted)).measured
    assert [row[:2] for row in whole.tables[0].rows] == [[50, 5], [51, 5]]
    assert [row[:2] for row in parts.tables[0].rows] == [[50, 5], [51, 5]]
    assert parts.value(outliers.SIMILARITY) == pytest.approx(
        whole.value(outliers.SIMILARITY), abs=1e-3
    )
    assert any("float16" in note for note in parts.notes)


def test_a_part_of_many_texts_is_drawn_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs beyond what a report takes account of are not those at the end: what is odd there shows."""
    pairs = [(text, text) for text in sentences(60, WORDS, 16)]
    pairs += [(text, text[::-1]) for text in sentences(60, WORDS, 17)]
    monkeypatch.setattr(robustness, "MAX_TEXTS", 60)
    measured = made("robustness", ReportData(pairs=pairs)).measured
    assert 0.3 < measured.value("found first, unchanged") < 0.7
    assert measured.notes == ["A sample of 60 of the 120 pairs, drawn by the seed."]


def biased(amount: float) -> object:
    """Return an embedder of the probes' words in which work leans to men by an amount."""
    probes = read_probes("bias")
    gender, work = direction("gender"), set(probes["tests"][0]["x"])
    men, women = set(probes["tests"][0]["a"]), set(probes["tests"][0]["b"])
    words = {word for test in probes["tests"] for name in "xyab" for word in test[name]}
    words |= {word for pair in probes["pairs"] for word in pair} | set(probes["occupations"])

    def side(word: str) -> float:
        return amount * (word in work) + 2.0 * (word in men) - 2.0 * (word in women)

    return of_table({word: direction(word) + side(word) * gender for word in sorted(words)})


def test_planted_bias_is_found() -> None:
    """An association that was planted is found with a small p; without it none is."""
    planted = made("bias", ReportData(), biased(1.0)).measured
    name = "effect size, career and family by gender"
    found = planted.get(name)
    assert found is not None
    assert found.value > 1
    assert found.p is not None
    assert found.p <= bias.ALARM_P
    absent = made("bias", ReportData(), biased(0.0))
    assert not any(name in line for line in absent.advice)


def test_bias_that_is_absent_is_found_as_rarely_as_the_level_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a hundred word sets without an association some ten have a p of at most 0.1."""
    random = np.random.default_rng(9)
    monkeypatch.setattr(bias, "PERMUTATIONS", 199)
    monkeypatch.setattr(bias, "DRAWS", 5)
    words = unit(random.standard_normal((200 * 16, 12)).astype(np.float32)).reshape(200, 16, 12)
    probabilities = [
        bias.effect_size(words[2 * seed], 8, words[2 * seed + 1], 8, seed)[3] for seed in range(100)
    ]
    assert 1 <= sum(p <= 0.1 for p in probabilities) <= 19


def test_own_word_sets() -> None:
    """Labelled words are tested as the probes are; other labels are refused by their index."""
    words = {"x": ["a1", "a2"], "y": ["b1", "b2"], "a": ["a3", "a4"], "b": ["b3", "b4"]}
    texts = [word for group in words.values() for word in group]
    labels = [label for label, group in words.items() for _ in group]
    table = {word: direction(word[0]) * 3 + direction(word) for word in texts}
    found = made("bias", ReportData(texts=texts, labels=labels), of_table(table)).measured
    assert found.value("effect size, your words") > 1
    with pytest.raises(Exception, match="'x' and 'y'"):
        made("bias", ReportData(texts=texts, labels=["z", *labels[1:]]))


def topics(texts: Sequence[str], role: str | None = None) -> FloatArray:
    """Embed a sentence as the topic that its first word names, with some noise."""
    del role
    noise = np.random.default_rng(1).standard_normal((len(texts), WIDTH)).astype(np.float32)
    rows = np.stack([3 * direction(text.split(maxsplit=1)[0]) for text in texts])
    return unit(rows + noise)


def test_planted_joints_are_found() -> None:
    """Where topics change the valleys lie; where all is one topic, WindowDiff says that nothing is found."""
    documents = [f"Topic{number} is here. " * 6 for number in range(16)]
    clear = made("segments", ReportData(texts=documents), topics).measured
    assert clear.value("recall, 4 sentences a side") == 1
    assert clear.value("WindowDiff, 4 sentences a side") < 0.1
    same = made("segments", ReportData(texts=["Same is here. " * 6] * 16), topics)
    assert same.measured.value("WindowDiff, 4 sentences a side") > 0.3
    assert "miss many" in same.advice[0]


def test_joints_are_found_where_a_file_is_sorted_by_subject() -> None:
    """Neighbours in a file that are alike are not joined to one another: texts are drawn, the same for one seed."""
    documents = [f"Topic{number // 4} is here. " * 6 for number in range(160)]
    sorted_by_subject = made("segments", ReportData(texts=documents), topics).measured
    assert sorted_by_subject.value("recall, 4 sentences a side") > 0.9
    again = made("segments", ReportData(texts=documents), topics).measured
    assert [each.value for each in again.figures] == [
        each.value for each in sorted_by_subject.figures
    ]


def test_texts_of_one_sentence_have_no_joints_between_sentences() -> None:
    """A report that they cannot make says why, instead of failing."""
    with pytest.raises(InputError, match="0 of these texts have 2 sentences or more"):
        made("segments", ReportData(texts=["One sentence"] * 16), topics)


def test_a_student_is_compared_with_its_teacher() -> None:
    """A noisy copy keeps less the noisier it is; a copy without noise is the same, and no slower by its tokens."""
    data = ReportData(
        texts=sentences(80, WORDS, 10), pairs=[(t, t) for t in sentences(40, WORDS, 11)]
    )
    kept = []
    for noise in (0.0, 0.5, 2.0):
        first = subject(noisy(bag_of_words, noise), "student")
        task = Task(data, first, subject())
        measured: Figures = make_report(REPORTS["compare"], task).measured
        kept.append(measured.value("neighbours kept of ten"))
    assert kept[0] == 1
    assert kept == sorted(kept, reverse=True)
    assert kept[2] < 0.5


def test_sets_hold_the_right_answer_as_often_as_they_say() -> None:
    """Split conformal sets hold the right answer at least as often as asked for, on pairs of a noisy model."""
    pairs = [(f"{text} query", text) for text in sentences(200, WORDS, 12)]
    measured = made("calibration", ReportData(pairs=pairs), noisy(bag_of_words, 1.0)).measured
    for coverage in (0.8, 0.9, 0.95):
        held = measured.get(f"answers held at a coverage of {coverage:.0%}")
        assert held is not None
        assert coverage - 0.005 <= held.value <= coverage + 0.03


def test_leaking_vectors_are_told_from_those_that_tell_nothing() -> None:
    """Words come back from sums of words, and no more than the commonest ones from vectors without meaning."""
    words = [
        f"{first}{second}" for first in ("alpha", "gamma", "delta", "omega") for second in "abcdef"
    ]
    texts = sentences(400, words, 13, length=4)
    leaking = made("leakage", ReportData(texts=texts)).measured
    silent = made("leakage", ReportData(texts=texts), topics).measured
    name = "known words recovered by ten guesses"
    base = leaking.value("the same by the ten commonest words")
    assert leaking.value(name) > base + 0.2
    assert abs(silent.value(name) - base) < 0.25
    assert leaking.value("vectors that find their text among candidates") > 0.95


def test_the_probes_find_good_models_good() -> None:
    """A model that knows what belongs together passes the probes; one of noise fails them."""
    pairs = read_probes("code")
    knows = of_table({text: direction(pair[0]) for pair in pairs for text in pair})
    assert made("code", ReportData(), knows).measured.figures[0].value == 1
    probes = read_probes("bitext")
    assert {len(set(texts)) for texts in probes.values()} == {64}
    rows = {text: direction(f"{n}") for texts in probes.values() for n, text in enumerate(texts)}
    good = made("bitext", ReportData(), of_table(rows))
    assert [figure.value for figure in good.measured.figures] == [1] * 5
    bad = made(
        "bitext",
        ReportData(),
        lambda texts, role=None: unit(np.stack([direction(t) for t in texts])),
    )
    assert max(figure.value for figure in bad.measured.figures) < 0.5
    assert "does not bring these together" in bad.advice[0]
    ordered = made("numbers", ReportData(), lambda texts, role=None: _by_number(texts))
    assert ordered.measured.figures[0].value > 0.95
    plain = made("columns", ReportData(), lambda texts, role=None: bag_of_words(_plain(texts)))
    assert plain.measured.figures[0].value == pytest.approx(1)
    assert made("columns", ReportData()).measured.figures[0].value < 0.9
    assert made("entities", ReportData()).measured.figures[0].n == 40
    cost = made("cost", ReportData(texts=sentences(200, WORDS, 14))).measured
    assert cost.value("seconds for a million tokens") == pytest.approx(1000)


def _plain(texts: Sequence[str]) -> list[str]:
    """Return texts without commas, which a sum of words would tell from the same words without."""
    return [text.replace(",", "") for text in texts]


def _by_number(texts: Sequence[str]) -> FloatArray:
    """Embed a sentence by the logarithm of the number in it, as an angle."""
    numbers = [float("".join(letter for letter in text if letter.isdigit())) for text in texts]
    angles = np.log(numbers) / 10
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
