"""`nestvec model fit --idf`: counts are kept beside the artefact, served from then on, checked and refused."""

import asyncio
import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.cli import doctor, group
from nestvec.cli.model import idf
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.model_store.artefacts.term_counts import FILE
from nestvec.model_store.package import Package
from nestvec.tools.diagnostics.checks import Health

from tests.support.tiny import write_tiny_bert

TEXTS = ["alpha one", "alpha beta", "red", "alpha one one"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and texts."""
    folder = tmp_path_factory.mktemp("idf")
    write_tiny_bert(folder / "model")
    (folder / "texts.txt").write_text("\n".join(TEXTS))
    return folder


def run(home: Path, *arguments: str) -> Result:
    """Count terms of the texts for the tiny model."""
    base = ["model", "fit", str(home / "model"), "--cache-dir", str(home / "cache"), "--idf"]
    fixed = ["--offline", "--log-level", "error", "--texts", str(home / "texts.txt")]
    return CliRunner().invoke(group, [*base, *fixed, *arguments])


def settings_of(home: Path) -> Settings:
    """Return settings of the tiny model."""
    cache = {"cache_dir": str(home / "cache"), "offline": True}
    return load_settings({"model": str(home / "model"), **cache}).for_offline_tools()


def test_counted_terms_are_served(home: Path) -> None:
    """The next start gives weights of terms; a damaged file is as none, and the doctor tells of it."""
    done = run(home)
    assert done.exit_code == 0, done.output
    assert "4 terms of 4 texts, 2.0 tokens each" in done.output
    settings = settings_of(home)
    service = build_local_service(settings, NullObserver())
    try:
        model = service.models.resolve("")
        assert OutputKind.SPARSE in model.spec.kinds
        call = EmbedCall(["alpha red"], kind=OutputKind.SPARSE)
        result = asyncio.run(service.embed(call))
        assert result.rows == (2,)
        # The rarer term weighs more, and ids rise.
        alpha, red = result.vectors.tolist()
        assert alpha[0] < red[0]
        assert alpha[1] < red[1]
    finally:
        service.close()
    package = prepare_model(settings)
    (check,) = doctor._term_counts(settings, package)
    assert (check.health, "of 4 texts" in check.says) == (Health.OK, True)
    (package.artefact / FILE).write_bytes(b"PK")
    (check,) = doctor._term_counts(settings, package)
    assert (check.health, "--idf" in check.advice) == (Health.WARNING, True)
    service = build_local_service(settings, NullObserver())
    try:
        assert OutputKind.SPARSE not in service.models.resolve("").spec.kinds
    finally:
        service.close()


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ((OutputKind.DENSE, OutputKind.SPARSE), "has a head for weights of terms"),
        ((OutputKind.LABELS,), "for models that give vectors"),
    ],
    ids=["sparse head", "no vectors"],
)
def test_models_that_need_no_counts_refuse_them(
    home: Path,
    tiny_package: Package,
    monkeypatch: pytest.MonkeyPatch,
    kinds: tuple[OutputKind, ...],
    words: str,
) -> None:
    """The reason is told, and nothing is written."""
    spec = dataclasses.replace(tiny_package.spec, kinds=kinds)
    package = dataclasses.replace(tiny_package, spec=spec)
    monkeypatch.setattr(idf, "prepare_model", lambda _: package)
    done = run(home)
    assert done.exit_code != 0
    assert words in str(done.exception) + done.output
    assert not (package.artefact / FILE).exists()


@pytest.mark.parametrize("other", [("--turn", "svd"), ("--out", "x.npz"), ("--map-name", "x")])
def test_counts_are_no_map(home: Path, other: tuple[str, str]) -> None:
    """Flags of maps do not go with it."""
    done = run(home, *other)
    assert done.exit_code != 0
