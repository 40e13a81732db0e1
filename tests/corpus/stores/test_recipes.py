"""The recipes of docs/stores.md, run as they stand: commands, then Python, on a folder of documents."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.corpus.stores.cases import INSTALL, skip_module_without_stores
from tests.support.services import Service, postgres_server

skip_module_without_stores()

pytestmark = [pytest.mark.model, pytest.mark.process]
PAGE: Final = (Path(__file__).parents[3] / "docs/stores.md").read_text("utf-8")
DOCUMENTS: Final = {
    "keys.md": "# Keys\n\nA key is rotated: how keys are rotated, and the old key is revoked.\n",
    "bread.md": "# Bread\n\nFlour, water, salt, and a warm oven.\n",
    "trees.md": "# Trees\n\nOaks and birches along the river.\n\n# More trees\n\nPines on the hill.\n",
}
PACKAGES: Final = {
    "LanceDB": "lancedb",
    "Qdrant": "qdrant_client",
    "Chroma": "chromadb",
    "PostgreSQL": "psycopg",
    "FAISS": "faiss",
    "USearch": "usearch",
    "hnswlib": "hnswlib",
    "DuckDB": "duckdb",
    "Milvus": "milvus_lite",
}
ADDRESS: Final = "postgresql://me@localhost/notes"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A section of the page.

    Attributes:
        name: Its heading.
        commands: The commands of its first block.
        code: Its Python.
    """

    name: str
    commands: list[str]
    code: str


def recipes() -> Iterator[Recipe]:
    """Yield the sections that say nothing of not having been run, as far as they hold a recipe."""
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        name = section.splitlines()[0]
        commands = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
        code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
        if "(not run here" not in name and commands and code:
            yield Recipe(name, commands[1].splitlines(), code[1])


RECIPES: Final = list(recipes())


@pytest.fixture(scope="module")
def database() -> Iterator[Service]:
    """A PostgreSQL of these tests' own."""
    with postgres_server() as service:
        yield service


def test_every_store_has_a_recipe() -> None:
    """Each store that a recipe is promised for has one."""
    assert {recipe.name for recipe in RECIPES} == set(PACKAGES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_finds_what_was_asked(
    recipe: Recipe, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Commands and code run as they stand, and put the document first that answers the question."""
    if importlib.util.find_spec(PACKAGES[recipe.name]) is None:
        pytest.skip(f"{PACKAGES[recipe.name]} is not installed; {INSTALL}")
    place = ADDRESS
    if recipe.name == "PostgreSQL":
        url = request.getfixturevalue("database").url
        place = url.replace("postgresql+psycopg", "postgresql")
    (tmp_path / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (tmp_path / "docs" / name).write_text(text)
    # The small model in place of the default one.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "NESTVEC_MODEL": "static", "PYTHONPATH": path}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for line in recipe.commands:
        program, *arguments = shlex.split(line.replace(ADDRESS, place))
        assert program == "nestvec"
        shown = run("-m", "nestvec", *arguments)
        if arguments[0] == "search":
            assert "keys.md" in shown.splitlines()[1]
            assert len(shown.splitlines()) == 5
    shown = run("-c", recipe.code.replace(ADDRESS, place))
    assert [line.split()[0].rpartition("/")[2] for line in shown.splitlines()][:1] == ["keys.md"]
    assert len(shown.splitlines()) == 3
