"""The flags of `nestvec model fit` for maps whose values have names, and for those that take directions out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from nestvec.engine.front.labelling import PLACE
from nestvec.engine.vectors.maps import AffineMap
from nestvec.errors import ConfigError
from nestvec.tools.quality.labelled_texts import (
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
OPTIONS: Final = (
    click.option(
        "--concepts",
        type=FILE,
        metavar="FILE",
        help="Fit a map with a value for each label: lines of a label, or of a label, a tab and an example text.",
    ),
    click.option(
        "--template",
        metavar="TEXT",
        help=f"What labels' names are put into, in place of {PLACE}.  [default: {PLACE}]",
    ),
    click.option(
        "--calibrate",
        type=FILE,
        metavar="FILE",
        help="Learn labels' probabilities from lines of a label, a tab and a text.",
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
            concepts = read_concepts(self.concepts)
            labels = [concept.label for concept in concepts]
            labelled = read_labelled(self.calibrate, labels) if self.calibrate else []
            return lambda source, _, __: fit_concepts(source, concepts, template, labelled)
        if self.remove is not None:
            pairs, rank = read_text_pairs(self.remove), self.rank or 1
            return lambda source, texts, task: fit_removal(source, pairs, rank, texts, task)
        return None


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
