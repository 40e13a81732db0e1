"""Files of word vectors, and folders imported of them, for the fuzzing of their parsers."""

import gzip
import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from nestvec.errors import NestvecError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.word_tables.importing import ImportOptions, import_table

from tests.end_to_end.fuzz.mutate import as_json, mutated_bytes, mutated_json
from tests.model_store.word_tables.files import (
    binary_table,
    fasttext_model,
    text_table,
    vectors,
    write_magnitude,
)


def pristine_tables(folder: Path) -> list[bytes]:
    """Return a file of each format."""
    table = vectors(3)
    buckets = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    write_magnitude(folder / "pristine", table)
    return [
        text_table(table, has_header=True),
        text_table(table, has_header=False),
        binary_table(table),
        fasttext_model(table, buckets),
        fasttext_model(table, buckets),
        (folder / "pristine").read_bytes(),
    ]


def write_table(folder: Path, tables: list[bytes], chooser: random.Random) -> None:
    """Write a mutated file, now and then packed, or mutate what an import made."""
    content = mutated_bytes(chooser.choice(tables), chooser)
    if chooser.random() < 0.1:
        content = mutated_bytes(gzip.compress(content), chooser)
    elif chooser.random() < 0.1:
        content = gzip.compress(content)
    (folder / "table").write_bytes(content)
    config = folder / "imported/config.json"
    if not config.exists():
        (folder / "whole").write_bytes(tables[3])
        import_table(folder / "whole", folder / "imported")
        shutil.copyfile(config, folder / "config.json")
    said = json.loads((folder / "config.json").read_bytes())
    config.write_bytes(as_json(mutated_json(said, chooser)))


def read_table(folder: Path) -> object:
    """Read the folder, whatever comes of it, and import the file."""
    with suppress(NestvecError):
        read_model_folder(folder / "imported").open_tokenizer()
    shutil.rmtree(folder / "made", ignore_errors=True)
    return import_table(folder / "table", folder / "made", ImportOptions(backs_off=True))
