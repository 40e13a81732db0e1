"""The report of a tiny model with fitted exits: its figures against plain computations, and its page in a browser."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.cli import group
from nestvec.config.loading import load_settings
from nestvec.corpus.reports.frame import ReportData, Subject, Task
from nestvec.corpus.reports.kept_vectors import KeptVectors
from nestvec.corpus.reports.kinds import quality
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.model_store.artefacts.maps import read_maps
from nestvec.tools.quality.report.build import ReportPlan, make_report, vector_sources
from nestvec.tools.quality.report.report import Tasks
from nestvec.tools.quality.tasks import PairTask, read_answer_pairs
from nestvec.tools.quality.vectors import ModelVectors
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from tests.api.http.test_documentation import BROWSER
from tests.support.tiny import WORDS, write_tiny_bert

WIDTH = 32


def words(count: int, seed: int) -> list[str]:
    """Return texts of a few words of the tiny vocabulary, each different."""
    random = np.random.default_rng(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(random.choice(WORDS, random.integers(2, 9)))] = None
    return list(texts)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, texts to fit on, pairs with scores, and pairs of query and answer."""
    folder = tmp_path_factory.mktemp("report")
    write_tiny_bert(folder / "model")
    (folder / "fit.txt").write_text("\n".join(words(200, 1)))
    texts = words(240, 2)
    (folder / "texts.txt").write_text("\n".join(texts))
    random = np.random.default_rng(3)
    lines = [f"{random.uniform(0, 5):.2f}\t{a}\t{b}" for a, b in itertools.pairwise(texts)]
    (folder / "sts.tsv").write_text("\n".join(lines))
    pairs = [f"{text} {text.split()[0]}\t{text}" for text in texts[:80]]
    (folder / "pairs.tsv").write_text("\n".join(pairs))
    return folder


def run(home: Path, *arguments: str) -> Result:
    """Run a verb with the tiny model and a cache of its own."""
    verb = [*arguments, "--cache-dir", str(home / "cache"), "--offline", "--log-level", "error"]
    return CliRunner().invoke(group, verb, catch_exceptions=True)


@pytest.fixture(scope="module")
def fitted(home: Path) -> Path:
    """The model with an exit map and a map that rotates its space."""
    for kind in (("--exits",), ("--turn", "svd")):
        done = run(
            home, "model", "fit", str(home / "model"), *kind, "--texts", str(home / "fit.txt")
        )
        assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def model(fitted: Path) -> Iterator[ModelVectors]:
    """The fitted model, in this process."""
    settings = load_settings(
        {"model": str(fitted / "model"), "cache_dir": str(fitted / "cache"), "offline": True}
    )
    service = build_local_service(settings.for_offline_tools(), NullObserver())
    with ModelVectors(service, lambda _: None) as vectors:
        yield vectors


def unit(vectors: NDArray[np.float32]) -> FloatArray:
    """Return vectors at unit length."""
    return finish(vectors, dimensions=None, normalize=True)


def test_exits_and_maps_are_fitted_and_kept(fitted: Path) -> None:
    """Fitted maps lie beside the artefact, where servers find them at their next start."""
    settings = load_settings(
        {"model": str(fitted / "model"), "cache_dir": str(fitted / "cache"), "offline": True}
    )
    package = prepare_model(settings)
    maps = read_maps(package.artefact, package.spec.space)
    assert {name: (affine_map.kind, affine_map.layers) for name, affine_map in maps.items()} == {
        "exit-1": (MapKind.EXIT, 1),
        "svd": (MapKind.SVD, 0),
    }


def test_one_pass_gives_every_exit(model: ModelVectors) -> None:
    """One pass of all exits gives the vectors that a run of each gives."""
    texts = words(300, 5)
    both = model.raw(texts, (1, 2))
    assert both.shape == (2, 300, WIDTH)
    np.testing.assert_allclose(both[0], model.raw(texts, (1,))[0], atol=1e-6)
    np.testing.assert_allclose(both[1], model.raw(texts)[0], atol=1e-6)


def test_figures_are_what_plain_code_gives(model: ModelVectors, fitted: Path) -> None:
    """Spearman, nDCG, recall and agreement equal plain computations, for full vectors and for smaller forms."""
    random = np.random.default_rng(9)
    first, second = words(60, 6), words(60, 7)
    gold = random.uniform(0, 5, 60)
    task = PairTask(tuple(first), tuple(second), tuple(gold.tolist()))
    search = read_answer_pairs(fitted / "pairs.tsv")
    texts = words(80, 8)
    tasks = Tasks({"pairs": task}, {"search": search}, {"texts": texts})
    report = make_report(model, tasks, ReportPlan(dimensions=[16, 8]))
    assert {source.status for source in vector_sources(model, ReportPlan())} == {
        "full",
        "fitted",
        "svd",
    }

    def score(task: str, metric: str, size: int, dtype: str, status: str) -> float:
        (figure,) = [
            candidate
            for candidate in report.measurements.figures
            if (candidate.task, candidate.metric) == (task, metric)
            and (candidate.variant.dimensions, candidate.variant.dtype) == (size, dtype)
            and candidate.variant.source.status == status
        ]
        assert figure.estimate.low <= figure.estimate.score <= figure.estimate.high
        return figure.estimate.score

    left, right = (unit(model.raw(t)[0]).astype(float) for t in (first, second))
    assert score("pairs", "spearman", WIDTH, "float", "full") == pytest.approx(
        stats.spearmanr((left * right).sum(axis=1), gold).statistic, abs=1e-3
    )
    early = next(
        source for source in vector_sources(model, ReportPlan()) if source.status == "fitted"
    )
    left, right = (
        (unit(early.vectors(model.raw(t, (1,))[0])[:, :16]) > 0) for t in (first, second)
    )
    assert score("pairs", "spearman", 16, "binary", "fitted") == pytest.approx(
        stats.spearmanr((left == right).sum(axis=1), gold).statistic, abs=1e-3
    )
    queries = unit(model.raw(search.queries, role="query")[0])
    documents = unit(model.raw(search.documents, role="passage")[0])
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    answers = [
        search.document_ids.index(next(iter(search.relevant[query]))) for query in search.query_ids
    ]
    rank = [row.tolist().index(answer) for row, answer in zip(order, answers, strict=True)]
    assert score("search", "recall_at_10", WIDTH, "float", "full") == pytest.approx(
        np.mean([r < 10 for r in rank])
    )
    assert score("search", "ndcg_at_10", WIDTH, "float", "full") == pytest.approx(
        np.mean([1 / np.log2(r + 2) if r < 10 else 0 for r in rank]), abs=1e-6
    )
    vectors = unit(model.raw(texts, role="passage")[0])
    unit_prefix = unit(vectors[:, :8])
    agreements = []
    for n in range(80):
        rankings = [np.argsort(-(v @ v[n]), kind="stable") for v in (vectors, unit_prefix)]
        tops = [[d for d in row.tolist() if d != n][:10] for row in rankings]
        agreements.append(len(set(tops[0]) & set(tops[1])) / 10)
    assert score("texts", "agreement_at_10", 8, "float", "full") == pytest.approx(
        np.mean(agreements), abs=0.01
    )
    assert score("texts", "agreement_at_10", WIDTH, "float", "full") == 1.0
    second_stages = {
        funnel.second for funnel in report.measurements.funnels if funnel.oversampling == 10
    }
    assert second_stages == {"float", "int8"}
    assert max(funnel.recall.score for funnel in report.measurements.funnels) <= 1.0
    sizes = {
        figure.variant.bytes
        for figure in report.measurements.figures
        if figure.variant.dtype == "binary"
    }
    assert sizes == {1, 2, 4}


def test_the_report_quality_measures_the_same(model: ModelVectors, fitted: Path) -> None:
    """`nestvec report quality` gives the scores that `nestvec quality` has of full vectors, to the digit."""
    search = read_answer_pairs(fitted / "pairs.tsv")
    tasks = Tasks(searches={"search": search}, texts={"texts": words(80, 8)})
    whole = make_report(model, tasks, ReportPlan(dimensions=[32, 24, 16]))
    pairs = list(zip(search.queries, search.documents, strict=True))

    def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
        return unit(model.raw(texts, role=role)[0])

    quantizer = model.model.quantizer.for_unit_vectors()
    subject = Subject("tiny", model.model.spec.space, embed, quantizer=quantizer)
    for task, metric, words_of, data in (
        ("search", "ndcg_at_10", "nDCG@10", ReportData(pairs=pairs)),
        ("texts", "agreement_at_10", "neighbours kept of ten", ReportData(texts=words(80, 8))),
    ):
        measured = quality.measure(Task(data, subject))
        expected = {
            f"{words_of}, {each.variant.dimensions} dimensions, {each.variant.dtype}": each.estimate
            for each in whole.measurements.figures
            if (each.task, each.metric, each.variant.source.status) == (task, metric, "full")
            and each.variant.dimensions == WIDTH
        }
        assert len(expected) == 3
        for name, estimate in expected.items():
            figure = measured.get(name)
            assert figure is not None
            assert (figure.value, figure.low, figure.high) == pytest.approx(
                (estimate.score, estimate.low, estimate.high), abs=1e-9
            )


def test_an_interrupted_run_resumes(
    model: ModelVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors that were kept are not computed again, and give the same figures; exits keep theirs apart."""
    tasks, kept = Tasks(texts={"texts": words(60, 8)}), KeptVectors(tmp_path / "kept")
    plan = ReportPlan(dimensions=[16])
    first = make_report(model, tasks, plan, kept)
    found: list[int] = []
    model.on_progress = found.append
    plain = ModelVectors.raw

    def timed_only(
        self: ModelVectors, *args: Any, is_counted: bool = True, **more: Any
    ) -> FloatArray:
        assert not is_counted, "texts are embedded again"
        return plain(self, *args, is_counted=is_counted, **more)

    monkeypatch.setattr(ModelVectors, "raw", timed_only)
    again = make_report(model, tasks, plan, kept)
    assert found == [60]
    assert again.as_json()["figures"] == first.as_json()["figures"]
    with pytest.raises(AssertionError, match="embedded again"):
        make_report(model, tasks, ReportPlan(layers=[2], dimensions=[16], maps=[]), kept)


def test_the_verb_writes_a_page_tables_and_figures(fitted: Path) -> None:
    """The verb writes page, tables and JSON, and keeps the main figures where a server finds them."""
    out = fitted / "out"
    arguments = [
        *("quality", str(fitted / "model"), "--out", str(out), "--sts", str(fitted / "sts.tsv")),
        *("--pairs", str(fitted / "pairs.tsv"), "--texts", str(fitted / "texts.txt")),
        *("--dimensions", "16,8", "--maps", ""),
    ]
    done = run(fitted, *arguments)
    assert done.exit_code == 0, done.output
    assert "At most 1% loss" in done.output
    figures = json.loads((out / "report.json").read_text())
    assert {figure["task"] for figure in figures["figures"]} == {
        "pairs",
        "texts",
        f"{fitted.name}/sts",
    }
    assert {figure["layers"] for figure in figures["figures"]} == {1, 2}
    assert figures["throughput"]["relative"]["2"] == 1.0
    markdown = (out / "report.md").read_text()
    assert markdown.count("| 16 | int8 | 2 | 16 |") == 3
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 7
    assert not re.search(r"<script|src=|href=\"http", page)
    settings = load_settings(
        {"model": str(fitted / "model"), "cache_dir": str(fitted / "cache"), "offline": True}
    )
    service = build_local_service(settings, NullObserver())
    quality = service.models.resolve("").quality
    service.close()
    assert quality is not None
    assert {task["metric"] for task in quality["tasks"]} == {
        "spearman",
        "ndcg_at_10",
        "agreement_at_10",
    }
    assert len(quality["recommendations"]) == 3


@pytest.mark.process
def test_a_browser_shows_the_page(fitted: Path, tmp_path: Path) -> None:
    """A browser draws the page's parts: recommendations, plots in colour, tables."""
    chromium = shutil.which("chromium")
    page = fitted / "out" / "report.html"
    if chromium is None or not page.is_file():
        pytest.skip("no chromium: apt-get install chromium")
    shot = tmp_path / "report.png"
    subprocess.run(
        [
            *(chromium, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"),
            *("--window-size=1200,3000", f"--screenshot={shot}", page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (3000, 1200)
    # The plots' own colours: blue lines of floats, green of int8, orange of bits.
    for colour in ((31, 111, 235), (45, 164, 78), (188, 76, 0)):
        near = (np.abs(pixels - colour).max(axis=2) < 24).sum()
        assert near > 150, colour
    dark = (pixels.max(axis=2) < 90).sum()
    assert dark > 5000  # text
    dump = subprocess.run(
        [
            *(chromium, *BROWSER, f"--user-data-dir={tmp_path / 'profile'}"),
            *("--dump-dom", page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
        text=True,
    ).stdout
    parts = ["front", "funnels", "geometry", "all"]
    for part in ('id="recommendations"', 'id="throughput"', *(f'class="{p}"' for p in parts)):
        assert part in dump


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--texts", "fit.txt"], "choose one"),
        (["--texts", "fit.txt", "--exits", "--turn", "svd"], "choose one"),
        (["--texts", "fit.txt", "--exits", "2"], "not 1 to 1"),
        (["--texts", "fit.txt", "--exits", "x"], "no list"),
        (["--texts", "pairs.tsv", "--turn", "svd", "--map-name", "A B"], "map name"),
        (["--texts", "few.txt", "--turn", "svd"], "too few"),
        (["--texts", "fit.txt", "--from-vectors", "few.txt"], "needs --out"),
    ],
    ids=str,
)
def test_fits_that_cannot_be(home: Path, arguments: list[str], message: str) -> None:
    """A fit that is not possible is an error that says what is wrong."""
    (home / "few.txt").write_text("alpha\nbeta\n")
    paths = [
        str(home / argument) if argument.endswith((".txt", ".tsv")) else argument
        for argument in arguments
    ]
    done = run(home, "model", "fit", str(home / "model"), *paths)
    assert done.exit_code != 0
    assert message in f"{done.output} {done.exception}"


def test_a_translation_that_loses_too_much_is_not_kept(home: Path, tmp_path: Path) -> None:
    """A translation that loses too much is refused with its figures; who accepts the loss gets it, and can apply it."""
    write_tiny_bert(tmp_path / "other", seed=11)
    base = ["model", "fit", str(home / "model"), "--to", str(tmp_path / "other")]
    base += ["--texts", str(home / "fit.txt")]
    refused = run(home, *base)
    assert refused.exit_code != 0
    assert "loses" in str(refused.exception)
    assert "migrated_recall_at_10" in refused.output
    accepted = run(home, *base, "--max-loss", "1", "--out", str(tmp_path / "map.npz"))
    assert accepted.exit_code == 0, accepted.output
    stored = np.random.default_rng(0).standard_normal((5, WIDTH)).astype(np.float32)
    np.save(tmp_path / "old.npy", stored)
    done = run(
        home, "model", "apply", *(str(tmp_path / n) for n in ("map.npz", "old.npy", "new.npy"))
    )
    assert done.exit_code == 0, done.output
    moved = np.load(tmp_path / "new.npy")
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)


def test_stored_vectors_are_fitted_to_a_model(
    home: Path, model: ModelVectors, tmp_path: Path
) -> None:
    """Vectors of a model that is not here are fitted to one that is: a linear relation is found."""
    texts = (home / "fit.txt").read_text().splitlines()
    random = np.random.default_rng(1)
    rotation = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    np.save(tmp_path / "old.npy", (unit(model.raw(texts)[0]) @ rotation).astype(np.float32))
    arguments = ["--from-vectors", str(tmp_path / "old.npy"), "--texts", str(home / "fit.txt")]
    done = run(
        home,
        *("model", "fit", str(home / "model"), *arguments, "--out", str(tmp_path / "map.npz")),
    )
    assert done.exit_code == 0, done.output
    shown = re.search(r"migrated_recall_at_10\s+([\d.]+)", done.output)
    assert shown is not None
    assert float(shown.group(1)) > 0.95
