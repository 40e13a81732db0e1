"""What `Embed` is told about texts and vectors, read once where it is said, and sent to every actor."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal, TypedDict, TypeVar

from nestvec.assembly.library.calls import ROLES
from nestvec.corpus.embedders import OutputForm, TextOptions
from nestvec.corpus.reading.records import ALL_COLUMNS, Columns
from nestvec.engine.dtypes import OFFERED
from nestvec.engine.types import Truncation
from nestvec.errors import InputError

Member = TypeVar("Member", bound=StrEnum)
# What the vectors of each form stand in.
VECTOR_COLUMNS: Final = {
    OutputForm.DENSE: ("embedding",),
    OutputForm.MULTI_VECTOR: ("embedding",),
    OutputForm.SPARSE: ("indices", "values"),
}


class TableOptions(TypedDict, total=False):
    """What may be asked for all texts of a dataset.

    Attributes:
        text_column: The column that holds the text; "text" by default.
        template: Several columns written as the text, as "{title}. {abstract}", in place of `text_column`.
        context_column: A column whose text is read before each text and left out of its vector.
        id_column: The column by which an error names a row; "id" where there is one.
        keep_columns: The columns that stay beside the vectors; all of them by default.
        dimensions: Cut vectors to this many leading values (Matryoshka), then scale them to unit length again.
        dtype: "float32" (the default), "float16", "int8" and "uint8" by calibrated ranges, or packed bits: "binary" and
            "ubinary".
        role: "query" or "document": put the model's own prompt for it before each text, where it has one.
        prompt_name: Put the model's prompt of this name before each text.
        truncate: What is done with a text that is too long: "end" (the default), "start", "windows" or "error".
        layers: Stop early, after so many layers.
        map: The name of one of the model's maps, which vectors go through.
        output: "dense" (the default), "sparse" or "multi-vector", as the model gives.
        recipe: A recipe of the settings, in place of the model.
        space: Refuse a model whose vectors are of another space than this fingerprint.
    """

    text_column: str
    template: str
    context_column: str
    id_column: str
    keep_columns: Sequence[str] | None
    dimensions: int | None
    dtype: Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
    role: Literal["query", "document"] | None
    prompt_name: str | None
    truncate: Literal["end", "start", "windows", "error"]
    layers: int | None
    map: str | None
    output: Literal["dense", "sparse", "multi-vector"]
    recipe: str
    space: str


@dataclass(frozen=True, slots=True)
class TableJob:
    """What is made of each batch of a dataset.

    Attributes:
        columns: What is read of each row.
        keep: The columns that stay; None for all of them.
        texts: What is asked for all texts alike.
        recipe: The recipe of the settings that is meant; "" for the model.
        space: The fingerprint that the vectors' space must have; "" for any.
    """

    columns: Columns
    keep: tuple[str, ...] | None
    texts: TextOptions
    recipe: str = ""
    space: str = ""

    @property
    def vector_columns(self) -> tuple[str, ...]:
        """The columns that the vectors stand in."""
        return VECTOR_COLUMNS[self.texts.form]

    def kept(self, present: Sequence[str]) -> list[str]:
        """Return which of a batch's columns stay, in their order; those of the vectors are replaced.

        Raises:
            InputError: One that is to stay is not there.
        """
        if self.keep is not None and (missing := [n for n in self.keep if n not in present]):
            raise InputError(
                f"no column '{missing[0]}' to keep; there are: {', '.join(present)}",
                param="keep_columns",
            )
        wanted = present if self.keep is None else self.keep
        return [name for name in present if name in wanted and name not in self.vector_columns]


def table_job(options: TableOptions) -> TableJob:
    """Read what is asked for a dataset.

    Raises:
        InputError: An option is unknown or has no such value; names it.
    """
    if unknown := set(options) - set(TableOptions.__annotations__):
        known = ", ".join(sorted(TableOptions.__annotations__))
        name = min(unknown)
        raise InputError(f"there is no option '{name}'; there are: {known}", param=name)
    role = options.get("role")
    if role is not None and role not in ROLES:
        raise InputError("'role' must be 'query' or 'document'", param="role")
    keep = options.get("keep_columns")
    if isinstance(keep, str):
        raise InputError("'keep_columns' must be a list of names", param="keep_columns")
    return TableJob(
        columns=Columns(
            options.get("text_column", "text"),
            options.get("id_column"),
            template=options.get("template", ""),
            context=options.get("context_column", ""),
        ),
        keep=None if keep is None or ALL_COLUMNS in keep else tuple(keep),
        texts=TextOptions(
            dimensions=options.get("dimensions"),
            output_dtype=_member(OFFERED, "dtype", options.get("dtype", "float32")),
            truncate=_member(Truncation, "truncate", options.get("truncate", "end")),
            prompt_name=options.get("prompt_name"),
            prompt_role=None if role is None else ROLES[role],
            layers=options.get("layers"),
            map_name=options.get("map"),
            form=_member(OutputForm, "output", options.get("output", "dense")),
        ),
        recipe=options.get("recipe", ""),
        space=options.get("space", ""),
    )


def _member(members: Iterable[Member], name: str, value: Any) -> Member:  # noqa: ANN401 - whatever a caller gives
    """Read a member of an enumeration by its value.

    Raises:
        InputError: There is none.
    """
    known = {member.value: member for member in members}
    if value not in known:
        raise InputError(f"'{name}' must be one of {', '.join(map(repr, known))}", param=name)
    return known[value]
