"""Documents as a target: HTML, Word, PDF and packed lines, read as `nestvec embed` reads them."""

import gzip
import importlib.util
import random
from pathlib import Path

from nestvec.corpus.reading.extraction import EXTRACTORS
from nestvec.corpus.reading.readers import read_records
from nestvec.corpus.reading.records import Columns

from tests.corpus.document_samples import PAGE, WORD, docx, pdf
from tests.end_to_end.fuzz.mutate import mutated_bytes

SAMPLES = {
    "page.html": PAGE,
    "text.pdf": pdf("Page one", "Page two"),
    "lines.jsonl.gz": gzip.compress(b'{"text": "one"}\n"two"\n' * 20),
    "text.md": b"# head\n\ntext\n",
}


def write_documents(folder: Path, _: None, chooser: random.Random) -> None:
    """Write each kind of document, mutated."""
    for name, content in SAMPLES.items():
        (folder / name).write_bytes(mutated_bytes(content, chooser))
    # A zip whose checksums are wrong is refused at once: what is in it is mutated, or the zip.
    body = mutated_bytes(WORD.encode(), chooser).decode("utf-8", "replace")
    word = docx(body) if chooser.random() < 0.7 else mutated_bytes(docx(WORD), chooser)
    (folder / "text.docx").write_bytes(word)


def read_document(folder: Path) -> object:
    """Read one of them, each in its turn."""
    turn = folder / "turn"
    number = int(turn.read_text()) if turn.exists() else 0
    turn.write_text(str(number + 1))
    names = [name for name in (*SAMPLES, "text.docx") if _can_be_read(name)]
    path = folder / names[number % len(names)]
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return list(read_records(path, Columns(), kind))


def _can_be_read(name: str) -> bool:
    """Whether the packages are there that read a file."""
    extractor = EXTRACTORS.get(Path(name).suffix)
    return extractor is None or all(map(importlib.util.find_spec, extractor.packages))
