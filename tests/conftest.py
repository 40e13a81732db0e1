"""Fixtures that tests of several folders share."""

import functools
import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import hypothesis
import pytest
from nestvec.assembly.sources import source_options
from nestvec.backends.onnx import OnnxBackend
from nestvec.config.loading import load_settings
from nestvec.errors import ModelError
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.sources.fetch import SourceOptions

from tests.support.tiny import write_tiny_bert

# Speed is never asserted: a busy machine must not fail a property.
hypothesis.settings.register_profile("nestvec", deadline=None)
hypothesis.settings.load_profile("nestvec")

DATA_HOMES = itertools.count()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their parameter: what packed them may have written the time, and workers must agree on names."""
    return argname if isinstance(val, bytes) and len(val) > 8 else None


def pytest_collection_finish() -> None:
    """Let the collector pass over modules and thousands of tests: they live as long as the process."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _certificates_are_read_once() -> Iterator[None]:
    """Let the tests' HTTP clients share what the first has read of certificates: each would read them anew, 20 ms."""
    with pytest.MonkeyPatch.context() as patch:
        shared = functools.cache(httpx.create_ssl_context)
        patch.setattr("httpx._transports.default.create_ssl_context", shared)
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep tests from the shell's NESTVEC_ variables, but the cache of the default model, and from the user's data."""
    # Of a test's own: a data folder remembers that there are keys.
    home = tmp_path_factory.getbasetemp() / f"xdg-{next(DATA_HOMES)}"
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    for name in list(os.environ):
        if name.startswith("NESTVEC_") and name != "NESTVEC_CACHE_DIR":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT in sentence-transformers layout; read-only by agreement."""
    return write_tiny_bert(tmp_path_factory.mktemp("tiny") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for tiny models."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_package(tiny_folder: Path, tiny_cache: Path) -> Package:
    """The exported package of the tiny BERT."""
    options = SourceOptions(cache_dir=tiny_cache, card_dirs=(), is_offline=True)
    return load_package(str(tiny_folder), options, OnnxBackend)


@pytest.fixture(scope="session")
def default_package() -> Iterator[Package]:
    """The exported default model, from the user's cache."""
    settings = load_settings({"offline": True})
    try:
        yield load_package(settings.model, source_options(settings), OnnxBackend)
    except ModelError as error:
        pytest.skip(f"default model absent, run `make setup`: {error}")
