"""The examples of `nestvec embed` run as they are printed: in a checkout, from the first to the last."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from nestvec.cli import group

from tests.support.tiny import write_tiny_bert

ROOT = Path(__file__).parents[2]


def examples(page: str) -> list[list[str]]:
    """Return the arguments of a page's commands that embed into files; pipes, stores and Ray have their own tests."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if " | " not in line]
    commands = [shlex.split(line, comments=True) for line in lines if "nestvec embed " in line]
    apart = ("://", "--ray")
    return [
        command[1:] for command in commands if not any(word in " ".join(command) for word in apart)
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/embed.md"])
def test_examples_run_as_printed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example ends well beside the files that it names, and leaves its target."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NESTVEC_MODEL", str(write_tiny_bert(tmp_path / "model")))
    place = tmp_path / "checkout"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "docs").mkdir()
    for name in ("api.md", "embed.md"):
        (place / "docs" / name).write_text((ROOT / "docs" / name).read_text("utf-8"), "utf-8")
    if page != "README.md":
        row = {"text": "alpha beta", "title": "A", "year": 2001}
        (place / "corpus.jsonl").write_text(json.dumps(row) + "\n")
        (place / "notes.txt").write_text("alpha\n\nbeta\n")
    commands = examples(page)
    assert len(commands) >= 3
    for command in commands:
        # The tiny model has fewer dimensions than the default one.
        arguments = [re.sub(r"^(128|256)$", "4", argument) for argument in command]
        done = CliRunner().invoke(group, arguments)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        targets = [name for name in arguments if re.search(r"\.(npy|jsonl|parquet)$", name)]
        assert all((place / name).is_file() for name in targets)
