"""The documents say what the code does."""

import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nestvec
import numpy as np
import pytest
from nestvec import errors
from nestvec.api.dialect_docs import fill
from nestvec.backends.ort import PROVIDERS
from nestvec.config.settings import Settings
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.vectors.postprocess import convert
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.observability.metrics import Metrics
from nestvec.system.extras import LOCKED_APART
from prometheus_client import CollectorRegistry

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    "docs/api.md",
    "docs/deployment/containers.md",
    "docs/deployment/kubernetes.md",
    "docs/dialects.md",
    "docs/embed.md",
    "docs/vectors/capabilities.md",
    "docs/vectors/evaluate.md",
    "docs/vectors/reports.md",
    "docs/gpu.md",
    "docs/library.md",
    "docs/vectors/matryoshka.md",
    "docs/model-folders.md",
    "docs/operations.md",
    "docs/vectors/recipes.md",
    "docs/security.md",
    "docs/stores.md",
    "docs/vectors/texts.md",
    "docs/decisions/api.md",
    "docs/decisions/corpus.md",
    "docs/decisions/engine.md",
    "docs/decisions/gpu.md",
    "docs/decisions/graphs.md",
    "docs/decisions/serving.md",
    "docs/decisions/store.md",
    "docs/wire-behaviour.md",
    "deploy/proxies/README.md",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "models/README.md",
]
SERVER_LOCKS = ("cpu", "gpu", "openvino")
EXTRA_LOCKS = tuple(f"extras/{extra}" for extra in LOCKED_APART)
PINNED = re.compile(r"[a-z0-9].*==")
PINNED_VERSION = r"^([a-z0-9][\w.-]*)(?:\[[^]]*\])?==([^ ;]+)(?: ; ([^\\\n]*))?"


def text(name: str) -> str:
    """Return a file of the repository."""
    return (ROOT / name).read_text("utf-8")


def test_every_metric_has_a_line() -> None:
    """Every metric has a line in the documents, and every line has a metric."""
    metrics = Metrics(CollectorRegistry())
    metrics.cache.watch(VectorCache(2**20))
    metric_names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in metrics.registry.collect()
        if family.name.startswith("nestvec_")
    }
    documented = set(re.findall(r"^\| `(nestvec_\w+)`", text("docs/metrics.md"), re.MULTILINE))
    assert metric_names == documented


def test_the_readme_names_the_clients_that_were_tested() -> None:
    """The README names the clients in the versions of the locks."""
    lock = text("requirements/clients.txt")
    locked = dict(re.findall(r"^([\w-]+)(?:\[[^]]*\])?==([^ ;]+)", lock, re.MULTILINE))
    node = json.loads(text("tests/end_to_end/clients/node/package-lock.json"))
    names = [f"node_modules/{name}" for name in node["packages"][""]["dependencies"]]
    versions = {*locked.values(), *(node["packages"][name]["version"] for name in names)}
    table = text("README.md").split("## Clients")[1].split("## What it does")[0]
    rows = re.findall(r"^\| .+ \| ([\d.]+) \| .+ \| passes \|$", table, re.MULTILINE)
    assert len(rows) >= 25
    assert set(rows) <= versions
    for client in ("cohere", "voyageai", "ollama", "litellm", "haystack-ai", "langchain-openai"):
        assert locked[client] in rows


def test_the_tables_of_dialects_are_the_codes() -> None:
    """The tables of dialects are those that `make docs` writes from the code."""
    page = text("docs/dialects.md")
    assert fill(page) == page
    assert page.count(": generated -->") == 3


def all_codes() -> set[str]:
    """Return the error codes that reach a caller: those of classes, and those given where an error is raised."""
    classes = [
        error_class
        for error_class in vars(errors).values()
        if isinstance(error_class, type) and issubclass(error_class, errors.NestvecError)
    ]
    reaching = [
        error_class
        for error_class in classes
        if not issubclass(error_class, errors.ModelError | errors.ConfigError)
    ]
    raised_codes = re.findall(
        r'code="(\w+)"', "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    )
    abstract = {"overloaded"}  # CapacityError itself is never raised
    return (
        {error_class.code for error_class in reaching}
        | set(raised_codes)
        | {"unknown_url"} - abstract
    )


def test_every_error_code_has_a_line() -> None:
    """Every error code has a line in the documents, as clients match on them."""
    page = text("docs/errors.md")
    missing = {code for code in all_codes() - {"overloaded"} if f"`{code}`" not in page}
    assert not missing


def test_every_verb_of_the_makefile_has_a_help_line() -> None:
    """Every verb of the Makefile has a line in `make help`."""
    makefile = text("Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert described == set(phony[1].split())


@pytest.mark.parametrize("name", PAGES)
def test_verbs_and_files_that_pages_name_exist(name: str) -> None:
    """Links, `make` verbs, and paths in backticks of a document exist."""
    page = text(name)
    for verb in re.findall(r"`make ([a-z-]+)", page):
        assert re.search(rf"^{verb}:", text("Makefile"), re.MULTILINE), verb
    folder = (ROOT / name).parent
    for link in re.findall(r"\]\(([^)#:]+)\)", page):
        assert (folder / link).exists(), link
    for path in re.findall(
        r"`((?:app|tests|docs|docker|deploy|requirements|models)/[\w./-]+)`", page
    ):
        assert (ROOT / path).exists(), path


def test_the_readmes_settings_are_settings_with_their_defaults() -> None:
    """The README's ten settings exist and have the defaults that it names."""
    rows = re.findall(r"^\| `NESTVEC_(\w+)` \| `?([^|`]+)`? \|", text("README.md"), re.MULTILINE)
    assert len(rows) == 10
    for name, default in rows:
        field = Settings.model_fields[name.lower()]
        if default.strip() not in ("none", "~/.cache/nestvec"):
            assert str(field.default).lower() == default.strip().lower(), name


def test_versions_agree() -> None:
    """The package has a version, and the changelog has an open section or that version."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", nestvec.__version__)
    assert "## [Unreleased]" in text("CHANGELOG.md") or nestvec.__version__ in text("CHANGELOG.md")


def lines_of_lock(lock: str) -> list[str]:
    """Return the lines of a lock that pin a package."""
    return [line for line in text(f"requirements/{lock}.txt").splitlines() if PINNED.match(line)]


def versions_in(lock: str) -> set[tuple[str, str, str]]:
    """Return what a lock pins: package, version, and on which Pythons or systems."""
    found = re.findall(PINNED_VERSION, text(f"requirements/{lock}.txt"), re.MULTILINE)
    return {(name, version, marker.strip()) for name, version, marker in found}


@pytest.mark.parametrize("lock", [*SERVER_LOCKS, *EXTRA_LOCKS, "dev", "clients", "proxies"])
def test_locks_have_hashes_and_no_hosts(lock: str) -> None:
    """Every locked requirement is pinned and hashed, names no host, and is neither torch nor transformers."""
    lines = text(f"requirements/{lock}.txt").splitlines()
    pinned = lines_of_lock(lock)
    assert len(pinned) > (0 if lock in (*EXTRA_LOCKS, "proxies") else 40)
    assert all(line.rstrip().endswith("\\") for line in pinned)
    assert not [
        line for line in lines if "://" in line or line.startswith(("-i", "--index", "--extra"))
    ]
    assert not [line for line in pinned if re.match(r"(torch|transformers)==", line)]


@pytest.mark.parametrize("lock", SERVER_LOCKS)
def test_server_locks_have_no_package_of_the_extras_apart(lock: str) -> None:
    """A server serves neither Parquet nor reports: what only these need, 170 MB and more, is in no server lock."""
    names = {name for name, _, _ in versions_in(lock)}
    assert not names & {"pyarrow", "scipy", "matplotlib", "pillow"}


@pytest.mark.parametrize("extra", LOCKED_APART)
def test_the_lock_of_an_extra_is_that_extra_and_fits_the_others(extra: str) -> None:
    """It holds what pyproject.toml asks for, and every package that others lock too in a version of theirs."""
    asked = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"][extra]
    listed = [
        line for line in text(f"requirements/extras/{extra}.in").splitlines() if line[0] != "#"
    ]
    assert listed == asked
    pinned = versions_in(f"extras/{extra}")
    assert {re.split(r"[\[>=]", name)[0] for name in asked} <= {name for name, _, _ in pinned}
    for lock in (*SERVER_LOCKS, "dev"):
        others = versions_in(lock)
        names = {name for name, _, _ in others}
        assert {entry[:2] for entry in pinned if entry[0] in names} <= {e[:2] for e in others}
    tested = {entry[:2] for lock in ("dev", "stores", "ray") for entry in versions_in(lock)}
    assert {entry[:2] for entry in pinned} <= tested


def test_the_lock_of_cudnn_fits_that_of_the_gpu_extra() -> None:
    """It is for GPU hosts only, so no other lock has it; `make setup EXTRA=gpu EXTRAS=cudnn` and the image take it."""
    asked = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]["cudnn"]
    listed = text("requirements/extras/cudnn.in").splitlines()
    assert [line for line in listed if line[0] != "#"] == asked
    pinned = versions_in("extras/cudnn")
    own = {entry for entry in pinned if entry[0].startswith("nvidia-cudnn")}
    assert own
    assert {entry[:2] for entry in pinned - own} <= {entry[:2] for entry in versions_in("gpu")}
    command = made("setup", "EXTRA=gpu", "EXTRAS=cudnn").stdout
    assert "--require-hashes -r requirements/extras/cudnn.txt" in command


def made(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make` would run."""
    tool = shutil.which("make")
    if tool is None:
        pytest.skip("make absent")
    # As if nothing were installed yet, whatever there is here.
    line = [tool, "--dry-run", "PYTHON=python3", "STAMPS=no-such-folder", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_setup_adds_extras_from_their_locks() -> None:
    """`make setup EXTRAS=…` installs each extra with hashes, and does not know others."""
    command = made("setup", f"EXTRAS={','.join(LOCKED_APART)}").stdout
    without = made("setup").stdout
    for extra in LOCKED_APART:
        assert f"--require-hashes -r requirements/extras/{extra}.txt" in command
        assert f"extras/{extra}.txt" not in without
    assert f"none of {', '.join(LOCKED_APART)};" in made("setup", "EXTRAS=nonsense").stdout


def test_the_readme_says_which_examples_need_an_extra() -> None:
    """An example that needs a package of an extra has the command that installs it in the same block."""
    needs = {"parquet": r"\.(parquet|arrow)\b", "quality": r"nestvec quality\b"}
    for block in re.findall(r"```sh\n(.*?)```", text("README.md"), re.DOTALL):
        for extra, pattern in needs.items():
            if re.search(pattern, block):
                assert f"make setup EXTRAS={extra}" in block


def test_the_node_lock_names_no_host() -> None:
    """The Node lock has integrity hashes only."""
    lock = text("tests/end_to_end/clients/node/package-lock.json")
    assert '"integrity"' in lock
    assert '"resolved"' not in lock


def test_extras_choose_the_runtime() -> None:
    """A GPU host needs nothing but the extra [gpu], and neither extra pulls in the other's runtime."""
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    assert [r.split(">")[0] for r in extras["cpu"]] == ["onnxruntime"]
    assert [re.split("[>~]", r)[0] for r in extras["gpu"]] == [
        "onnxruntime-gpu",
        "nvidia-cuda-runtime",
        "nvidia-cublas",
        "nvidia-curand",
        "nvidia-ml-py",
    ]
    assert "\nonnxruntime==" not in text("requirements/gpu.txt")
    assert "\nonnxruntime-gpu==" in text("requirements/gpu.txt")
    # 1.2 GB that only graphs of others may need.
    assert not re.search("^nvidia-(cudnn|cufft)", text("requirements/gpu.txt"), re.MULTILINE)
    assert set(PROVIDERS) == {"cpu", "cuda"}


def test_importing_has_no_effects() -> None:
    """Every module imports in a bare process without touching files, threads or settings."""
    names = [
        m.name
        for m in pkgutil.walk_packages(nestvec.__path__, "nestvec.")
        if m.name != "nestvec.__main__"
    ]
    assert len(names) > 50
    for name in names:
        importlib.import_module(name)
    code = "import sys, threading\n" + "\n".join(f"import {n}" for n in names)
    code += "\nassert threading.active_count() == 1"
    subprocess.run(
        [shutil.which("env") or "env", "-i", sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
    )


def test_the_funnel_of_the_documents_finds_the_nearest() -> None:
    """The function in docs/vectors/matryoshka.md finds what a search of all vectors finds."""
    code = re.search(
        r"```python\n(import numpy.*?)```", text("docs/vectors/matryoshka.md"), re.DOTALL
    )
    assert code is not None
    namespace: dict[str, Any] = {}
    exec(code.group(1), namespace)  # noqa: S102 - our own page
    random = np.random.default_rng(0)
    vectors = random.standard_normal((500, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quantizer = Quantizer(vectors)
    bits = convert(vectors, OutputDtype.UBINARY, quantizer)
    codes = convert(vectors, OutputDtype.INT8, quantizer)
    for query in vectors[:20] + 0.1 * random.standard_normal((20, 64)).astype(np.float32):
        results = namespace["funnel_search"](query, bits, codes)
        nearest = np.argsort(-(vectors @ query), kind="stable")[:10]
        assert len(set(results.tolist()) & set(nearest.tolist())) >= 8
        assert results[0] == nearest[0]
