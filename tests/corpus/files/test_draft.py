"""Drafts: unfinished outputs that a later run resumes."""

from pathlib import Path

import pytest
from nestvec.corpus.files.draft import Draft, Progress
from nestvec.errors import ArtefactError

JOB = {"of": "this"}


def begun(target: Path) -> Draft:
    """Make a draft with ten records in it, left by a run that was cut short."""
    draft = Draft(target, JOB)
    draft.path.write_bytes(b"0123456789")
    draft.commit(Progress(records=10, tokens=20, offsets={"lines": 10}))
    return draft


def test_the_same_job_goes_on(tmp_path: Path) -> None:
    """It resumes with what was committed."""
    begun(tmp_path / "out.jsonl").close(keeps=True)
    draft = Draft(tmp_path / "out.jsonl", JOB)
    assert draft.progress == Progress(10, 0, 20, 0, {"lines": 10})
    assert draft.path.read_bytes() == b"0123456789"
    draft.discard()


@pytest.mark.parametrize("damage", ["other job", "no progress", "garbage", "wrong fields"])
def test_anything_else_begins_anew(tmp_path: Path, damage: str) -> None:
    """Another job, or a broken note of progress, starts with an empty folder."""
    draft = begun(tmp_path / "out.jsonl")
    file = draft.folder / "progress.json"
    draft.close(keeps=True)
    if damage == "no progress":
        file.unlink()
    elif damage != "other job":
        file.write_text("{" if damage == "garbage" else '{"job": "x", "what": 1}')
    again = Draft(tmp_path / "out.jsonl", {"of": "that"} if damage == "other job" else JOB)
    assert again.progress == Progress()
    assert [path.name for path in again.folder.iterdir()] == ["lock"]
    again.discard()


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    """The second gets an error, and harms nothing."""
    draft = begun(tmp_path / "out.jsonl")
    with pytest.raises(ArtefactError, match="another process is writing it"):
        Draft(tmp_path / "out.jsonl", JOB)
    assert draft.path.read_bytes() == b"0123456789"
    draft.discard()


def test_publishing_leaves_the_output_alone(tmp_path: Path) -> None:
    """The output is beside where its draft was, and the draft's folder is gone."""
    draft = begun(tmp_path / "out.jsonl")
    draft.publish([draft.path])
    draft.close(keeps=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_nothing_is_left_of_nothing(tmp_path: Path) -> None:
    """No folder stays of a job without records, nor of one that cannot be resumed."""
    Draft(tmp_path / "out.jsonl", JOB).close(keeps=True)
    begun(tmp_path / "out.jsonl").close(keeps=False)
    assert list(tmp_path.iterdir()) == []
