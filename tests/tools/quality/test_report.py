"""The report, of a tiny model with fitted exits: its figures against plain computations, and its page in a browser."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.assembly.model import prepare_model
from nestvec.assembly.service import build_engine
from nestvec.cli import group
from nestvec.config.loading import load_settings
from nestvec.engine.types import FloatArray, NullObserver
from nestvec.engine.vectors.maps import MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.model_store.artefacts.maps import read_maps
from nestvec.tools.quality.report import Plan, Tasks, find_sources, make_report
from nestvec.tools.quality.tasks import PairTask, read_given_pairs
from nestvec.tools.quality.vectors import ModelVectors
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from tests.api.http.test_documentation import BROWSER
from tests.support.tiny import WORDS, write_tiny_bert

WIDTH = 32


def words(count: int, seed: int) -> list[str]:
    """Texts of a few of the tiny vocabulary's words, none twice."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(random.choice(WORDS, random.integers(2, 9)))] = None
    return list(found)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a tiny model, texts to fit on, pairs with scores and pairs of queries."""
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
    """A verb with the tiny model and its own cache."""
    verb = [*arguments, "--cache-dir", str(home / "cache"), "--offline", "--log-level", "error"]
    return CliRunner().invoke(group, verb, catch_exceptions=True)


@pytest.fixture(scope="module")
def fitted(home: Path) -> Path:
    """The model with an exit and a turned space."""
    for kind in (("--exits",), ("--turn", "svd")):
        done = run(
            home, "model", "fit", str(home / "model"), *kind, "--texts", str(home / "fit.txt")
        )
        assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def model(fitted: Path) -> Iterator[ModelVectors]:
    """In process."""
    settings = load_settings(
        {"model": str(fitted / "model"), "cache_dir": str(fitted / "cache"), "offline": True}
    )
    service = build_engine(settings.for_own_work(), NullObserver())
    with ModelVectors(service, lambda _: None) as found:
        yield found


def unit(vectors: NDArray[np.float32]) -> FloatArray:
    """At unit length."""
    return finish(vectors, dimensions=None, normalize=True)


def test_exits_and_maps_are_fitted_and_kept(fitted: Path) -> None:
    """Beside the artefact; servers have them at their next start."""
    settings = load_settings(
        {"model": str(fitted / "model"), "cache_dir": str(fitted / "cache"), "offline": True}
    )
    package = prepare_model(settings)
    maps = read_maps(package.artefact, package.spec.space)
    assert {name: (one.kind, one.layers) for name, one in maps.items()} == {
        "exit-1": (MapKind.EXIT, 1),
        "svd": (MapKind.SVD, 0),
    }


def test_one_pass_gives_every_exit(model: ModelVectors) -> None:
    """The same vectors as a run of each."""
    texts = words(300, 5)
    both = model.raw(texts, (1, 2))
    assert both.shape == (2, 300, WIDTH)
    np.testing.assert_allclose(both[0], model.raw(texts, (1,))[0], atol=1e-6)
    np.testing.assert_allclose(both[1], model.raw(texts)[0], atol=1e-6)


def test_figures_are_what_plain_code_gives(model: ModelVectors, fitted: Path) -> None:
    """Spearman, nDCG, recall and agreement of the full vectors and of a cut, coarse, early form."""
    random = np.random.default_rng(9)
    first, second = words(60, 6), words(60, 7)
    gold = random.uniform(0, 5, 60)
    task = PairTask(tuple(first), tuple(second), tuple(gold.tolist()))
    search = read_given_pairs(fitted / "pairs.tsv")
    texts = words(80, 8)
    tasks = Tasks({"pairs": task}, {"search": search}, {"texts": texts})
    report = make_report(model, tasks, Plan(dimensions=[16, 8]))
    assert {s.status for s in find_sources(model, Plan())} == {"full", "fitted", "svd"}

    def score(task: str, metric: str, size: int, dtype: str, status: str) -> float:
        (found,) = [
            f
            for f in report.measured.figures
            if (f.task, f.metric) == (task, metric)
            and (f.variant.dimensions, f.variant.dtype) == (size, dtype)
            and f.variant.source.status == status
        ]
        assert found.estimate.low <= found.estimate.score <= found.estimate.high
        return found.estimate.score

    one, other = (unit(model.raw(t)[0]).astype(float) for t in (first, second))
    assert score("pairs", "spearman", WIDTH, "float", "full") == pytest.approx(
        stats.spearmanr((one * other).sum(axis=1), gold).statistic, abs=1e-3
    )
    early = next(s for s in find_sources(model, Plan()) if s.status == "fitted")
    one, other = ((unit(early.vectors(model.raw(t, (1,))[0])[:, :16]) > 0) for t in (first, second))
    assert score("pairs", "spearman", 16, "binary", "fitted") == pytest.approx(
        stats.spearmanr((one == other).sum(axis=1), gold).statistic, abs=1e-3
    )
    queries = unit(model.raw(search.queries, role="query")[0])
    documents = unit(model.raw(search.documents, role="passage")[0])
    order = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    place = [search.document_ids.index(next(iter(search.relevant[q]))) for q in search.query_ids]
    rank = [row.tolist().index(wanted) for row, wanted in zip(order, place, strict=True)]
    assert score("search", "recall_at_10", WIDTH, "float", "full") == pytest.approx(
        np.mean([r < 10 for r in rank])
    )
    assert score("search", "ndcg_at_10", WIDTH, "float", "full") == pytest.approx(
        np.mean([1 / np.log2(r + 2) if r < 10 else 0 for r in rank]), abs=1e-6
    )
    vectors = unit(model.raw(texts, role="passage")[0])
    cut = unit(vectors[:, :8])
    found = []
    for n in range(80):
        near = [np.argsort(-(v @ v[n]), kind="stable") for v in (vectors, cut)]
        tops = [[d for d in row.tolist() if d != n][:10] for row in near]
        found.append(len(set(tops[0]) & set(tops[1])) / 10)
    assert score("texts", "agreement_at_10", 8, "float", "full") == pytest.approx(
        np.mean(found), abs=0.01
    )
    assert score("texts", "agreement_at_10", WIDTH, "float", "full") == 1.0
    best = {f.second for f in report.measured.funnels if f.oversampling == 10}
    assert best == {"float", "int8"}
    assert max(f.recall.score for f in report.measured.funnels) <= 1.0
    sizes = {f.variant.bytes for f in report.measured.figures if f.variant.dtype == "binary"}
    assert sizes == {1, 2, 4}


def test_the_verb_writes_a_page_tables_and_figures(fitted: Path) -> None:
    """And keeps the main ones beside the artefact, where a server finds them."""
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
    assert {one["task"] for one in figures["figures"]} == {"pairs", "texts", f"{fitted.name}/sts"}
    assert {one["layers"] for one in figures["figures"]} == {1, 2}
    assert figures["throughput"]["relative"]["2"] == 1.0
    markdown = (out / "report.md").read_text()
    assert markdown.count("| 16 | int8 | 2 | 16 |") == 3
    page = (out / "report.html").read_text()
    assert page.count("<svg") >= 7
    assert not re.search(r"<script|src=|href=\"http", page)
    settings = load_settings(
        {"model": str(fitted / "model"), "cache_dir": str(fitted / "cache"), "offline": True}
    )
    service = build_engine(settings, NullObserver())
    kept = service.models.resolve("").quality
    service.close()
    assert kept is not None
    assert {task["metric"] for task in kept["tasks"]} == {
        "spearman",
        "ndcg_at_10",
        "agreement_at_10",
    }
    assert len(kept["recommendations"]) == 3


@pytest.mark.process
def test_a_browser_shows_the_page(fitted: Path, tmp_path: Path) -> None:
    """Its parts are there and drawn: recommendations, plots in colour, tables."""
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
    """Say what is wrong."""
    (home / "few.txt").write_text("alpha\nbeta\n")
    given = [str(home / a) if a.endswith((".txt", ".tsv")) else a for a in arguments]
    done = run(home, "model", "fit", str(home / "model"), *given)
    assert done.exit_code != 0
    assert message in f"{done.output} {done.exception}"


def test_a_translation_that_loses_too_much_is_not_kept(home: Path, tmp_path: Path) -> None:
    """Its figures are shown; who accepts the loss gets it, and can send stored vectors through it."""
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
    """Those of a model that is not here; a relation that is linear is found."""
    texts = (home / "fit.txt").read_text().splitlines()
    random = np.random.default_rng(1)
    turned = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    np.save(tmp_path / "old.npy", (unit(model.raw(texts)[0]) @ turned).astype(np.float32))
    arguments = ["--from-vectors", str(tmp_path / "old.npy"), "--texts", str(home / "fit.txt")]
    done = run(
        home,
        *("model", "fit", str(home / "model"), *arguments, "--out", str(tmp_path / "map.npz")),
    )
    assert done.exit_code == 0, done.output
    shown = re.search(r"migrated_recall_at_10\s+([\d.]+)", done.output)
    assert shown is not None
    assert float(shown.group(1)) > 0.95
