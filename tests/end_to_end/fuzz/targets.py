"""The parsers of files that others made; each target writes a mutated file and reads it as the server would.

A parser may refuse a file by an error of ours (`NestvecError`), which names what is wrong; anything else is a finding.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from nestvec.errors import NestvecError

from tests.end_to_end.fuzz.parsers import (
    documents,
    folders,
    kept_files,
    lines,
    pictures,
    preprocessors,
    tokenizer_files,
    vision_language,
    weights,
    word_tables,
)
from tests.end_to_end.fuzz.parsers.parser_target import ParserTarget, nothing

TARGETS: dict[str, ParserTarget] = {
    **weights.TARGETS,
    **tokenizer_files.TARGETS,
    **folders.TARGETS,
    "vision language": ParserTarget(
        vision_language.prepare, vision_language.write, vision_language.read
    ),
    "preprocessor": ParserTarget(
        nothing, preprocessors.write_preprocessor, preprocessors.read_preprocessor
    ),
    "pictures": ParserTarget(
        pictures.sample_pictures, pictures.write_picture, pictures.read_picture
    ),
    "documents": ParserTarget(nothing, documents.write_documents, documents.read_document),
    "word tables": ParserTarget(
        word_tables.pristine_tables, word_tables.write_table, word_tables.read_table
    ),
    **lines.TARGETS,
    **kept_files.TARGETS,
}


def cases(name: str, folder: Path, seed: int) -> Iterator[BaseException | None]:
    """Run a target for as long as the iterator is asked; gives an error that it should not have raised, or None."""
    target = TARGETS[name]
    chooser = random.Random(f"{name} {seed}")
    prepared = target.prepare(folder)
    while True:
        target.write(folder, prepared, chooser)
        try:
            target.read(folder)
        except NestvecError as error:
            yield None if error.message else AssertionError("an error without a message")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
            yield error
        else:
            yield None
