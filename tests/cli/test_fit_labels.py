"""`nestvec model fit --concepts` and `--remove`: what is fitted of a tiny model, kept, measured and refused."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.assembly.service import build_local_service
from nestvec.cli import group
from nestvec.config.loading import load_settings
from nestvec.corpus.reports.forms.measure import Grid
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.model_store.artefacts.maps import read_map
from nestvec.tools.quality.report.build import ReportPlan, vector_sources
from nestvec.tools.quality.vectors import ModelVectors

from tests.support.tiny import WORDS, write_tiny_bert

LABELS = ("alpha", "one", "red")
# Two words behind the label's own: 27 texts of each.
DRAWN = [(word, other) for word in WORDS[1:4] for other in WORDS[2:11]]
PAIRS = (("alpha one", "beta one"), ("alpha red", "beta red"), ("alpha", "beta"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, labels, texts that have them, pairs, and a judged search."""
    folder = tmp_path_factory.mktemp("labels")
    write_tiny_bert(folder / "model")
    (folder / "topics.tsv").write_text("alpha\none\none\ttwo three\nred\tgreen blue\n")
    random = np.random.default_rng(4)
    lines = [f"{label}\t{label} {word} {other}" for label in LABELS for word, other in DRAWN]
    (folder / "labelled.tsv").write_text("\n".join(lines))
    (folder / "pairs.tsv").write_text("\n".join("\t".join(pair) for pair in PAIRS))
    texts = [" ".join(random.choice(WORDS, 4)) for _ in range(40)]
    (folder / "texts.txt").write_text("\n".join(texts))
    return folder


def run(home: Path, *arguments: str) -> Result:
    """Fit a map of the tiny model into a file of its own."""
    base = ["model", "fit", str(home / "model"), "--cache-dir", str(home / "cache")]
    fixed = ["--offline", "--log-level", "error", "--out", str(home / "map.npz")]
    return CliRunner().invoke(group, [*base, *fixed, *arguments])


def fit(home: Path, *arguments: str) -> AffineMap:
    """Fit a map, and read it back."""
    done = run(home, *arguments)
    assert done.exit_code == 0, done.output
    return read_map(home / "map.npz")


@pytest.fixture(scope="module")
def model(home: Path) -> Iterator[ModelVectors]:
    """The tiny model in this process."""
    cache = {"cache_dir": str(home / "cache"), "offline": True}
    settings = load_settings({"model": str(home / "model"), **cache})
    service = build_local_service(settings.for_offline_tools(), NullObserver())
    with ModelVectors(service, lambda _: None) as vectors:
        yield vectors


def unit(vectors: FloatArray) -> FloatArray:
    """Return vectors at unit length."""
    return finish(vectors, dimensions=None, normalize=True)


def test_concepts_are_cosines_with_anchors(home: Path, model: ModelVectors) -> None:
    """Values are cosines with the mean of each label's unit vectors; anchors are nearest to themselves."""
    template = ("--template", "beta {} gamma", "--map-name", "topics")
    fitted = fit(home, "--concepts", str(home / "topics.tsv"), *template)
    assert (fitted.name, fitted.kind, fitted.labels) == ("topics", MapKind.CONCEPTS, LABELS)
    assert (fitted.source, fitted.template) == (model.model.spec.space, "beta {} gamma")
    own = [["beta alpha gamma"], ["beta one gamma", "two three"], ["green blue"]]
    anchors = unit(np.stack([unit(model.raw(texts)[0]).mean(axis=0) for texts in own]))
    texts = (home / "texts.txt").read_text().splitlines()
    raw = model.raw(texts)[0]
    expected = unit(raw).astype(np.float64) @ anchors.T.astype(np.float64)
    np.testing.assert_allclose(fitted.apply(raw), expected, atol=1e-6)
    assert fitted.apply(anchors).argmax(axis=1).tolist() == [0, 1, 2]
    assert fitted.figures["labels"] == 3
    assert fitted.figures["anchor_texts"] == 4
    assert fitted.label_calibration is None
    # Eight-bit ranges are of the same space.
    assert fitted.quantizer.vectors is not None
    assert fitted.quantizer.vectors.shape[1] == 3


def test_a_calibration_is_kept_beside_its_labels(home: Path) -> None:
    """Half of the texts give scores; figures say how good the labels are."""
    both = ("--concepts", str(home / "topics.tsv"), "--calibrate", str(home / "labelled.tsv"))
    fitted = fit(home, *both)
    learned = fitted.label_calibration
    assert learned is not None
    assert learned.temperature is not None
    assert (learned.count, len(learned.scores)) == (41, 41)
    assert {"accuracy", "calibration_error", "coverage_at_90"} <= set(fitted.figures)
    assert (fitted.figures["labelled_texts"], fitted.figures["held_out_texts"]) == (40, 41)


def test_removal_takes_directions_out(home: Path, model: ModelVectors) -> None:
    """Behind the map no vector has a part along the directions in which pairs differ most; figures say so."""
    texts = home / "texts.txt"
    fitted = fit(home, "--remove", str(home / "pairs.tsv"), "--rank", "2", "--texts", str(texts))
    assert (fitted.name, fitted.kind, fitted.width) == ("remove", MapKind.REMOVE, 32)
    first, second = (unit(model.raw([pair[side] for pair in PAIRS])[0]) for side in (0, 1))
    _, singular, directions = np.linalg.svd((first - second).astype(np.float64))
    raw = model.raw(texts.read_text().splitlines())[0]
    assert np.abs(unit(fitted.apply(raw)) @ directions[:2].T).max() < 1e-6
    plain = unit(raw) - unit(raw) @ directions[:2].T @ directions[:2]
    np.testing.assert_allclose(fitted.apply(raw), plain, atol=1e-6)
    shares = singular**2 / (singular**2).sum()
    assert fitted.figures["first_direction_share"] == pytest.approx(shares[0], abs=1e-4)
    assert fitted.figures["removed_share"] == pytest.approx(shares[:2].sum(), abs=1e-4)
    assert fitted.figures["max_dot_after"] < 1e-6 < fitted.figures["max_dot_before"]
    assert 0 <= fitted.figures["recall_at_1"] <= 1
    assert fitted.figures["texts"] == len(raw)


def test_a_removal_that_costs_a_search_is_refused(home: Path, tmp_path: Path) -> None:
    """It is judged by a search with and without it, as a translation is."""
    folder = tmp_path / "judged"
    (folder / "qrels").mkdir(parents=True)
    documents = ["alpha one red", "beta one red", "alpha two blue", "beta two blue"]
    rows = [f'{{"_id": "{n}", "text": "{text}"}}' for n, text in enumerate(documents)]
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").write_text("\n".join(rows))
    judged = "\n".join(f"{n}\t{n}\t1" for n in range(4))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    remove = ("--remove", str(home / "pairs.tsv"), "--rank", "3", "--retrieval", str(folder))
    kept = fit(home, *remove, "--max-loss", "1")
    loss = kept.figures["loss"]
    shares = kept.figures["ndcg_at_10"], kept.figures["ndcg_at_10_plain"]
    assert loss == pytest.approx(1 - shares[0] / shares[1])
    assert loss > 0.02
    refused = run(home, *remove, "--max-loss", "0.02")
    assert refused.exit_code == 1
    assert "Remove fewer directions" in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "choose one of"),
        (("--concepts", "topics.tsv", "--remove", "pairs.tsv"), "choose one of"),
        (("--turn", "svd"), "--texts FILE is needed"),
        (("--concepts", "topics.tsv", "--texts", "texts.txt"), "leave --texts out"),
        (("--remove", "pairs.tsv", "--template", "{}"), "--template goes with --concepts"),
        (("--turn", "svd", "--calibrate", "labelled.tsv"), "--calibrate goes with --concepts"),
        (("--concepts", "topics.tsv", "--rank", "2"), "--rank goes with --remove"),
        (("--concepts", "topics.tsv", "--template", "about"), "'{}' once"),
        (("--concepts", "pairs.tsv", "--calibrate", "labelled.tsv"), ":28: there is no such label"),
        (("--concepts", "twins.tsv"), "labels 'alpha' and 'ALPHA' have one anchor"),
        (("--concepts", "topics.tsv", "--calibrate", "own.tsv"), "1 of the texts to calibrate on"),
        (("--concepts", "topics.tsv", "--calibrate", "few.tsv"), "1 texts of known labels"),
        (
            ("--remove", "pairs.tsv", "--rank", "4"),
            "4 directions cannot be removed: the pairs have 3",
        ),
        (("--remove", "same.tsv"), "no direction to remove"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_fitted_is_refused(
    home: Path, arguments: tuple[str, ...], says: str
) -> None:
    """The flag or the file's line is named, and what would do."""
    (home / "twins.tsv").write_text("alpha\nALPHA\n")
    (home / "own.tsv").write_text("one\ttwo three\none\tred\n")
    (home / "few.tsv").write_text("one\tblue blue\n")
    (home / "same.tsv").write_text("alpha\talpha\n")
    named = [str(home / each) if "." in each else each for each in arguments]
    done = run(home, *named)
    assert done.exit_code != 0
    assert says in f"{done.output}{done.exception}"


def test_reports_take_labelled_vectors_whole(
    home: Path, model: ModelVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nestvec quality` measures a map of labels with all its values only, and a removal as any map."""
    maps = {
        name: fit(home, flag, str(home / file), "--map-name", name)
        for name, flag, file in (
            ("topics", "--concepts", "topics.tsv"),
            ("unbiased", "--remove", "pairs.tsv"),
        )
    }
    served = model.model
    monkeypatch.setattr(ModelVectors, "model", dataclasses.replace(served, maps=maps))
    grid = Grid(vector_sources(model, ReportPlan()), [32, 2], ["float"])
    sizes = {(each.source.map_name, each.dimensions) for each in grid.variants()}
    assert sizes >= {("topics", 3), ("unbiased", 32), ("unbiased", 2), ("", 2)}
    assert ("topics", 2) not in sizes
