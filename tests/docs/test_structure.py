"""The house rules of CONTRIBUTING.md that a script can hold: sizes, names, references."""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "app/nestvec"
MAX_ENTRIES: Final = 20
# The package itself holds the rooms, and beside them what users import by name: `nestvec.ray`. Tests mirror it.
MORE_ENTRIES: Final = {"app/nestvec": 1, "tests": 1}
MAX_FILE_LINES: Final = 400
MAX_FUNCTION_LINES: Final = 60
# One file a family, and the folder grows with every family.
UNBOUNDED_FOLDERS: Final = ("export/families",)
# A file may be longer where its docstring says why, in a sentence that begins so.
REASON: Final = "One file on purpose:"
# The classes that describe the API for `/docs` bear their vendors' names for the same thing.
PUBLIC_NAMES: Final = "api/schemas/"
# What readers of the repository do not have. Built up, so that this file does not name it.
OUTSIDE: Final = re.compile(
    "|".join(
        (
            r"\bapi-" + r"contract\b",
            r"\bdecisions? \d",
            r"\b" + r"perf\.md\b",
            r"\b" + r"design\.md\b",
            r"\b" + r"style\.md\b",
            r"\b" + r"house\.md\b",
            r"\.\./" + r"shared/",
            r"\bissue \d",
            r"\(S\d{1,2}\)",
            r"\bS\d{1,2}'s\b",
        )
    )
)


def sources() -> Iterator[Path]:
    """Yield every Python file of the package, cards and caches aside."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "__pycache__" not in path.parts:
            yield path


def name_of(path: Path) -> str:
    """Return a path as it stands in messages, relative to the package."""
    return path.relative_to(PACKAGE).as_posix()


def test_no_folder_is_crowded() -> None:
    """A folder has at most 20 entries, so that a reader sees it at one glance."""
    entries: dict[str, set[str]] = defaultdict(set)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "app", "tests", "benchmarks", "docs"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for line in listed:
        if not (ROOT / line).exists():
            continue
        parts = Path(line).parts
        for depth in range(1, len(parts)):
            entries["/".join(parts[:depth])].add(parts[depth])
    crowded = {
        folder: len(names)
        for folder, names in entries.items()
        if len(names) > MAX_ENTRIES + MORE_ENTRIES.get(folder, 0)
        and not folder.endswith(UNBOUNDED_FOLDERS)
    }
    assert not crowded


def test_no_file_is_long_without_a_reason() -> None:
    """A file has at most 400 lines, or says in its docstring why it is longer."""
    long = {}
    for path in sources():
        text = path.read_text("utf-8")
        lines = text.count("\n")
        if lines > MAX_FILE_LINES and REASON not in (ast.get_docstring(ast.parse(text)) or ""):
            long[name_of(path)] = lines
    assert not long


def test_no_function_is_long() -> None:
    """A function has at most 60 lines, docstring included."""
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{name_of(path)}:{node.name}"] = lines
    assert not long


def test_a_class_name_means_one_thing() -> None:
    """No two public classes of the package bear one name, the schemas of vendors' bodies aside."""
    files: dict[str, list[str]] = defaultdict(list)
    for path in sources():
        if name_of(path).startswith(PUBLIC_NAMES):
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(name_of(path))
    assert not {name: paths for name, paths in files.items() if len(paths) > 1}


def read_by_people() -> list[str]:
    """Return the files of the repository that people read."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    kinds = (
        ".py",
        ".md",
        ".toml",
        ".yml",
        ".sh",
        ".ini",
        ".j2",
        ".in",
        ".c",
        "Makefile",
        "Dockerfile",
    )
    return [line for line in listed if line.endswith(kinds) and (ROOT / line).exists()]


@pytest.mark.parametrize("folder", ["app", "tests", "benchmarks", "docs", "models", ""])
def test_no_reference_leads_out_of_the_repository(folder: str) -> None:
    """No comment, docstring or page names a document that somebody with only this repository cannot open."""
    references = {}
    for name in read_by_people():
        top = name.split("/")[0] if "/" in name else ""
        if top != folder and not (folder == "" and top in ("docker", "deploy", "requirements")):
            continue
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), start=1):
            if OUTSIDE.search(line):
                references[f"{name}:{number}"] = line.strip()
    assert not references


def test_paths_that_people_are_sent_to_exist() -> None:
    """A path in backticks that begins with a room's name leads to a file or folder of the package."""
    rooms = "|".join(
        sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_")
    )
    path_of = re.compile(rf"`((?:{rooms})/[\w./-]*)`")
    missing = {}
    for name in read_by_people():
        # A page of what there was before; the folder of cards at the root is called as a room of the engine.
        if name.endswith("renames.md") or (
            not name.startswith(("app/", "docs/", "tests/")) and "/" in name
        ):
            continue
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), start=1):
            for path in path_of.findall(line):
                if not any((top / path).exists() for top in (PACKAGE, ROOT, PACKAGE / "engine")):
                    missing[f"{name}:{number}"] = path
    assert not missing


def test_paths_of_the_makefile_exist() -> None:
    """Folders and files of the checkout that a verb goes to are where it thinks they are."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    paths = re.findall(
        r"(?<![\w./])((?:app|tests|benchmarks|docs|docker|models|requirements)/[\w./-]+)", makefile
    )
    made = ("node_modules", "node_modules/.stamp")  # by npm
    missing = [p for p in paths if not (ROOT / p).exists() and not p.endswith(made)]
    assert len(paths) > 20
    # A name that a verb fills in ends at the variable: `requirements/$$extra.txt`.
    assert not [p for p in missing if not p.endswith("/")]
