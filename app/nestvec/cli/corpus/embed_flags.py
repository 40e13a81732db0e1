"""What `nestvec embed` may be told about texts and output, as flags and as a job."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from nestvec.corpus.embedders import OutputForm, TextOptions
from nestvec.corpus.job import CorpusJob
from nestvec.corpus.reading.readers import STREAMABLE
from nestvec.corpus.reading.records import Columns, TextUnit
from nestvec.corpus.reading.sources import STDIO, PictureFiles, find_sources
from nestvec.corpus.rows import Chunking
from nestvec.corpus.store_writer import IdKind
from nestvec.corpus.stores.registry import find_store
from nestvec.engine.dtypes import OFFERED, OutputDtype
from nestvec.engine.splitting import SplitterKind
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.engine.types import Truncation


def checked_template(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no template.

    Raises:
        click.BadParameter: It is none.
    """
    try:
        if value:
            RecordTemplate(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


READING: Final = (
    click.option(
        "--stdin-format",
        type=click.Choice([kind.removeprefix(".") for kind in STREAMABLE]),
        default="txt",
        show_default=True,
        help="What standard input holds.",
    ),
    click.option("--text-column", default="text", show_default=True, help="Column with the text."),
    click.option(
        "--template",
        metavar="TEXT",
        callback=checked_template,
        help="Write several columns as the text, such as '{title}. {abstract}'; default: the model's own template.",
    ),
    click.option(
        "--context-column",
        metavar="NAME",
        help="Column with a text that is read before each text and left out of its vector; with --chunk before every "
        "chunk.",
    ),
    click.option(
        "--group-column",
        metavar="NAME",
        help="Column whose equal values, one row after the other, make one vector together; its value is the id.",
    ),
    click.option(
        "--weight-column",
        metavar="NAME",
        help="Column with what a row's text weighs in its group; default: all the same.",
    ),
    click.option(
        "--id-column", help="Column with the id; default: 'id' if there is one, else numbers."
    ),
    click.option(
        "--pictures",
        is_flag=True,
        help="Read the pictures of folders too (.png .jpg .jpeg .webp .gif .bmp), by a model that takes them; those "
        "named by a path or glob are read without it.",
    ),
    click.option(
        "--per",
        type=click.Choice([unit.value for unit in TextUnit]),
        help="What is one text of a file without records; default: a line of .txt, the whole of a document or with "
        "--chunk.",
    ),
    click.option(
        "--keep-columns",
        metavar="A,B",
        help="Columns to keep beside the vectors; 'all' for all of them.",
    ),
    click.option("--with-text", is_flag=True, help="Keep the texts beside the vectors."),
    click.option(
        "--id",
        "id_kind",
        type=click.Choice([kind.value for kind in IdKind]),
        help="What ids are made of: the record's name (its id, or path and number), a column that must be there, a "
        "UUID or 63 bits of the name, the text's SHA-256, so that equal texts are one.  [default: name, or what the "
        "store takes]",
    ),
)
CHUNKING: Final = (
    click.option(
        "--chunk",
        type=click.Choice([kind.value for kind in SplitterKind]),
        help="Cut each document; rows tell document, start and end in characters. For semantic its sentences "
        "are embedded first, to find where it turns to another matter.",
    ),
    click.option(
        "--chunk-tokens",
        type=click.IntRange(min=4),
        help="Most tokens of a chunk.  [default: 256, or what the model takes]",
    ),
    click.option(
        "--chunk-overlap",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Tokens that a chunk shares with the one before.",
    ),
    click.option(
        "--chunk-language", default="en", show_default=True, help="Of sentences, an ISO code."
    ),
    click.option(
        "--late",
        is_flag=True,
        help="Late chunking: each chunk's vector is pooled from states that saw its whole document.",
    ),
)
VECTORS: Final = (
    click.option("--dimensions", type=click.IntRange(min=1), help="Keep so many values a vector."),
    click.option(
        "--truncate",
        type=click.Choice([t.value for t in Truncation]),
        default=Truncation.END.value,
        show_default=True,
        help="What to do with texts longer than the model takes.",
    ),
    click.option(
        "--prompt-name",
        help="One of the model's own prompts; default: none, or for a vector store that for passages, if it has one.",
    ),
    click.option("--layers", type=click.IntRange(min=1), help="Stop after so many layers."),
    click.option("--map", "map_name", help="Send vectors through a map of the model's."),
    click.option(
        "--output-dtype",
        type=click.Choice([dtype.value for dtype in OFFERED]),
        default=OutputDtype.FLOAT32.value,
        show_default=True,
        help="What values are stored as; int8 and uint8 by calibrated ranges, binary and ubinary keep signs, eight a "
        "byte.",
    ),
    click.option(
        "--output",
        type=click.Choice([form.value for form in OutputForm]),
        default=OutputForm.DENSE.value,
        show_default=True,
        help="One vector a text, weights of terms, or a vector each token; as the model gives.",
    ),
)
ADDING: Final = (
    click.option(
        "--append",
        is_flag=True,
        help="Add to TARGET: only texts that are new or have changed are embedded, what else it holds stays. From the "
        "first run on; stores need no such flag.",
    ),
    click.option(
        "--prune",
        is_flag=True,
        help="Let rows go whose documents are no longer among SOURCES; with --append or a store.",
    ),
)


def corpus_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags about texts and output to a command, in the order of its help."""
    for option in reversed((*READING, *CHUNKING, *VECTORS, *ADDING)):
        function = option(function)
    return function


def corpus_job(sources: tuple[str, ...], target: str, flags: Mapping[str, Any]) -> CorpusJob:
    """Return the job that flags describe.

    Args:
        sources: Paths, folders, globs, or "-".
        target: A path, "-", or a store's address.
        flags: What the flags of `corpus_flags` hold.

    Raises:
        click.UsageError: Flags contradict each other.
        FormatError: A source is not there or cannot be read.
    """
    store = find_store(target)
    if "://" in target and store is None:
        raise click.UsageError(f"{target}: no such kind of store; docs/stores.md has them")
    _check_together(flags, target, is_store=store is not None)
    id_kind = IdKind(flags["id_kind"]) if flags["id_kind"] else None
    if id_kind is None:
        id_kind = IdKind.NAME if store is None else store.id_kind
    per = TextUnit(flags["per"]) if flags["per"] else None
    if per is None and flags["chunk"]:
        per = TextUnit.FILE
    is_shared = store is not None or flags["append"]
    return CorpusJob(
        sources=find_sources(
            sources,
            flags["stdin_format"],
            names_all=is_shared,
            pictures=PictureFiles.ALL if flags["pictures"] else PictureFiles.NAMED,
        ),
        target=None if target == STDIO or store is not None else Path(target),
        store=target if store is not None else "",
        columns=Columns(
            flags["text_column"],
            flags["id_column"],
            needs_id=id_kind is IdKind.COLUMN,
            keep=column_names(flags["keep_columns"]),
            per=per,
            template=flags["template"] or "",
            context=flags["context_column"] or "",
            group=flags["group_column"] or "",
            weight=flags["weight_column"] or "",
        ),
        options=_options(flags, is_store=store is not None),
        with_text=flags["with_text"],
        id_kind=id_kind,
        chunking=_chunking(flags),
        appends=flags["append"],
        prunes=flags["prune"],
    )


def column_names(listed: str | None) -> tuple[str, ...]:
    """Return the names that a flag lists, between commas."""
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())


def _check_together(flags: Mapping[str, Any], target: str, *, is_store: bool) -> None:
    """Refuse flags that contradict each other.

    Raises:
        click.UsageError: They do; says how.
    """
    if flags["prune"] and not (flags["append"] or is_store):
        raise click.UsageError("--prune goes with --append, or with a vector store as TARGET")
    if flags["append"] and target == STDIO:
        raise click.UsageError("standard output cannot be added to; leave --append out")
    if flags["chunk"] is None and (
        flags["late"] or flags["chunk_tokens"] or flags["chunk_overlap"]
    ):
        raise click.UsageError("say how documents are cut: by --chunk")
    if flags["weight_column"] and not flags["group_column"]:
        raise click.UsageError(
            "--weight-column weighs texts of a group: name its column by --group-column"
        )


def _options(flags: Mapping[str, Any], *, is_store: bool) -> TextOptions:
    """Return what is asked for all texts alike: what goes into a store is searched by queries, so it is passages."""
    prompt_name = flags["prompt_name"]
    return TextOptions(
        dimensions=flags["dimensions"],
        output_dtype=OutputDtype(flags["output_dtype"]),
        truncate=Truncation(flags["truncate"]),
        prompt_name=prompt_name,
        prompt_role="passage" if is_store and not prompt_name else None,
        layers=flags["layers"],
        map_name=flags["map_name"],
        form=OutputForm(flags["output"]),
    )


def _chunking(flags: Mapping[str, Any]) -> Chunking | None:
    """Return how documents are cut, None where they are not."""
    if flags["chunk"] is None:
        return None
    return Chunking(
        SplitterKind(flags["chunk"]),
        flags["chunk_tokens"],
        flags["chunk_overlap"],
        flags["chunk_language"],
        flags["late"],
    )
