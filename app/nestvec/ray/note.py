"""What a run leaves in its folder, so that a later one knows it again: of what it is, and whether it is whole."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.ray.folders import ArrowPath

# Readers of Parquet folders pass over names that begin so.
NAME: Final = "_nestvec_run.json"
# Beside the folder: Ray Data takes files in it for data.
CHECKPOINT_ENDING: Final = ".nestvec-checkpoint"
PARTS: Final = ("sources", "options", "model")


@dataclass(frozen=True, slots=True)
class RunNote:
    """A run, as its folder tells it.

    Attributes:
        sources: The files: path, size and time of change of each.
        options: What was asked for.
        model: What was noted of the vectors: nestvec.model, nestvec.space and more.
        rows: Number of rows of the sources.
        is_complete: Whether all of them are in the folder.
    """

    sources: list[list[Any]]
    options: Mapping[str, Any]
    model: Mapping[str, str]
    rows: int = 0
    is_complete: bool = False

    def as_json(self) -> bytes:
        """Return it as it is written."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()

    def difference(self, other: "RunNote") -> str:
        """Return which part of another run differs from this one's; "" for none."""
        for part in PARTS:
            # Through JSON, which knows lists but no tuples.
            if _plain(getattr(self, part)) != _plain(getattr(other, part)):
                return part
        return ""


def read_note(folder: ArrowPath, name: str) -> RunNote | None:
    """Return the note of the run that a folder holds; None of an empty one, or where there is no folder.

    Args:
        folder: The folder.
        name: What the user calls it.

    Raises:
        FormatError: It holds something else, or its note cannot be read.
    """
    content = folder.inside(NAME).read()
    if content is None:
        if folder.entries():
            raise FormatError(
                f"{name}: is not empty, and holds no run of `nestvec embed --ray` to go on with; choose another folder"
            )
        return None
    try:
        return RunNote(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"{name}: its {NAME} cannot be read; choose another folder, or remove this one"
        ) from error


def check_note(found: RunNote, wanted: RunNote, name: str) -> RunNote:
    """Return the note of a run that is gone on with.

    Args:
        found: The note in the folder.
        wanted: What is asked for now.
        name: What the user calls the folder.

    Raises:
        FormatError: They are of different runs.
    """
    if part := found.difference(wanted):
        what = {
            "sources": "of other sources, or of these before they changed",
            "options": "with other options",
            "model": f"by another model or space ({found.model.get('nestvec.space')})",
        }[part]
        raise FormatError(
            f"{name}: holds a run {what}; choose another folder, or remove this one and "
            f"{CHECKPOINT_ENDING} beside it"
        )
    return found


def write_note(folder: ArrowPath, note: RunNote) -> None:
    """Write the note into a folder.

    Raises:
        ArtefactError: It cannot be written.
    """
    folder.inside(NAME).write(note.as_json())


def completed(note: RunNote) -> RunNote:
    """Return the note of the same run, all of whose rows are there."""
    return replace(note, is_complete=True)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a note holds
    return json.loads(json.dumps(value))
