"""The flags of `nestvec model fit` for maps whose values have names, and for those that take directions out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from nestvec.engine.front.labelling import PLACE
from nestvec.engine.vectors.maps import AffineMap
from nestvec.errors import ConfigError
from nestvec.tools.quality.labelled_pictures import (
    read_labelled_pictures,
    read_picture_concepts,
)
from nestvec.tools.quality.labelled_texts import (
    LabelledText,
    check_template,
    read_concepts,
    read_labelled,
    read_text_pairs,
)
from nestvec.tools.quality.maps.concepts import fit_concepts
from nestvec.tools.quality.maps.removal import fit_removal
from nestvec.tools.quality.tasks import RetrievalTask
from nestvec.tools.quality.vectors import ModelVectors

Function = Callable[..., None]
# Fits a map of a model; of own texts and a judged search only their figures are made.
LabelFit = Callable[[ModelVectors, Sequence[str], RetrievalTask | None], AffineMap]
FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
FILE_OR_FOLDER: Final = click.Path(exists=True, path_type=Path)
OPTIONS: Final = (
    click.option(
        "--concepts",
        type=FILE_OR_FOLDER,
        metavar="PATH",
        help="Fit a map with a value for each label: a file with lines of a label, or of a label, a tab and an example "
        "text; or a folder with a folder of example pictures for each label.",
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help=f"What labels' names are put into, in place of {PLACE}.  [default: {PLACE}]",
    ),
    click.option(
        "--calibrate",
        type=FILE_OR_FOLDER,
        metavar="PATH",
        help="Learn labels' probabilities from a file with lines of a label, a tab and a text; or from a folder with a "
        "folder of pictures for each label.",
    ),
    click.option(
        "--remove",
        type=FILE,
        metavar="FILE",
        help="Fit a map that takes out what tells pairs apart: lines of a text, a tab and a text.",
    ),
    click.option(
        "--rank",
        type=click.IntRange(1),
        help="How many directions --remove takes out.  [default: 1]",
    ),
)


@dataclass(frozen=True, slots=True)
class LabelFlags:
    """What the flags say; None: not given."""

    concepts: Path | None
    template: str | None
    calibrate: Path | None
    remove: Path | None
    rank: int | None

    def check(self, *, has_texts: bool) -> None:
        """Refuse flags that go with another one, and texts that nothing would be made of.

        Raises:
            ConfigError: There are such.
        """
        problems = []
        if self.concepts is None:
            beside = {"--template": self.template, "--calibrate": self.calibrate}
            problems += [f"{name} goes with --concepts" for name, each in beside.items() if each]
        elif has_texts:
            problems.append("--concepts has its own texts: leave --texts out")
        elif self.concepts.is_dir() and self.template is not None:
            problems.append("--template is of labels' names, and --concepts has their pictures")
        if self.remove is None and self.rank is not None:
            problems.append("--rank goes with --remove")
        if problems:
            raise ConfigError(problems)

    def reader(self) -> LabelFit | None:
        """Read the files, and return what fits their map; None where neither kind is asked for.

        Raises:
            FormatError: A file cannot be read, or has wrong lines; or the template has no place for a label.
        """
        if self.concepts is not None:
            template = check_template(self.template or PLACE)
            reads = read_picture_concepts if self.concepts.is_dir() else read_concepts
            concepts = reads(self.concepts)
            labels = [concept.label for concept in concepts]
            labelled = _read_labelled(self.calibrate, labels) if self.calibrate else []
            return lambda source, _, __: fit_concepts(source, concepts, template, labelled)
        if self.remove is not None:
            pairs, rank = read_text_pairs(self.remove), self.rank or 1
            return lambda source, texts, task: fit_removal(source, pairs, rank, texts, task)
        return None


def _read_labelled(path: Path, labels: Sequence[str]) -> list[LabelledText]:
    """Read texts of known labels from a file, or pictures from a folder.

    Raises:
        FormatError: They cannot be read, or have other labels.
    """
    return read_labelled_pictures(path, labels) if path.is_dir() else read_labelled(path, labels)


def label_flags(function: Function) -> Function:
    """Add the flags; the decorated function gets `label_flags`, a `LabelFlags`, in their place."""

    def wrapped(*args: Any, **values: Any) -> None:  # noqa: ANN401 - click's own
        names = ("concepts", "template", "calibrate", "remove", "rank")
        flags = LabelFlags(**{name: values.pop(name) for name in names})
        function(*args, label_flags=flags, **values)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined] # click's own way
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped
