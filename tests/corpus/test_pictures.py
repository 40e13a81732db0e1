"""Pictures of a corpus: which are read, what their rows are called, and how many go into a call."""

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.corpus.embedders import EngineEmbedder, OutputForm, TextOptions
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.pacing import MAX_PICTURES, PICTURE_BYTES, CallPacer, PaceLimits
from nestvec.corpus.reading.records import Columns, Record
from nestvec.corpus.reading.sources import PictureFiles, find_sources, left_out, read_sources
from nestvec.corpus.rows import Chunking, RowMaker
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.corpus.store_writer import IdKind
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.splitting import SplitterKind
from nestvec.engine.types import EmbedCall
from nestvec.errors import FormatError, InputError

from tests.engine.pictures.hostile import encoded, pixels, whole_files
from tests.support.served import Served, serve_fake

FILES = whole_files()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them deeper and with an ending in capitals, and a text."""
    folder = tmp_path / "photos"
    (folder / "old").mkdir(parents=True)
    (folder / "cat.png").write_bytes(FILES["png"])
    (folder / "old/dog.JPG").write_bytes(FILES["jpeg"])
    (folder / "notes.md").write_text("alpha")
    return folder


@pytest.fixture
def served(tiny_folder: Path, calls: list[EmbedCall]) -> Iterator[Served]:
    """A service that embeds a text in place of each picture, and notes its calls."""
    fake = serve_fake(tiny_folder / "tokenizer.json")
    embed = fake.service.embed

    async def stand_in(call: EmbedCall) -> EmbedResult:
        calls.append(call)
        texts = ["red" if isinstance(each, Picture) else each for each in call.inputs]
        broken = [n for n, each in enumerate(call.inputs) if each == Picture(b"broken")]
        if broken:
            raise InputError("this is no picture", param="input", input_index=broken[0])
        return await embed(dataclasses.replace(call, inputs=texts))

    fake.service.embed = stand_in  # type: ignore[method-assign]  # a service of pictures is none of this room's
    yield fake
    fake.service.close()


@pytest.fixture
def calls() -> list[EmbedCall]:
    """What the service was asked for."""
    return []


def sources_of(folder: Path, pictures: PictureFiles = PictureFiles.ALL) -> Any:
    """Return a folder's sources."""
    return find_sources([str(folder)], pictures=pictures)


async def run(served: Served, job: CorpusJob) -> CorpusSummary:
    """Embed a corpus."""
    scan_job(job)
    return await embed_corpus(EngineEmbedder(served.service), job, lambda *_: None)


def test_pictures_are_read_where_they_are_asked_for(folder: Path) -> None:
    """Folders give theirs when told to, paths and globs always; what takes texts only never sees one."""
    picture = str(folder / "cat.png")
    records = list(read_sources(sources_of(folder), Columns()))
    assert [(r.id, r.text, r.picture and r.picture.data) for r in records] == [
        ("photos/cat.png", "", FILES["png"]),
        ("photos/notes.md", "alpha", None),
        ("photos/old/dog.JPG", "", FILES["jpeg"]),
    ]
    assert [s.name for s in sources_of(folder, PictureFiles.NAMED)] == ["photos/notes.md"]
    (lone,) = find_sources([picture], pictures=PictureFiles.NAMED)
    assert [r.id for r in read_sources([lone], Columns())] == ["cat.png"]
    globbed = find_sources([str(folder / "**/*.png")], pictures=PictureFiles.NAMED)
    assert [source.kind for source in globbed] == [".png"]
    with pytest.raises(FormatError, match="unknown ending"):
        find_sources([picture])
    assert left_out([str(folder)]) == {".png": 1, ".jpg": 1}
    assert not left_out([str(folder)], with_pictures=True)
    (folder / "notes.md").unlink()
    with pytest.raises(FormatError, match="with --pictures"):
        sources_of(folder, PictureFiles.NAMED)


async def test_rows_are_called_by_path_and_found_again(
    folder: Path, served: Served, calls: list[EmbedCall], tmp_path: Path
) -> None:
    """A run that adds to its output embeds a picture again once its file holds another one."""
    target = tmp_path / "out.jsonl"

    def job() -> CorpusJob:
        return CorpusJob(sources_of(folder), target, appends=True)

    assert (await run(served, job())).rows == 3
    rows = {row["id"]: row for row in map(json.loads, target.read_text().splitlines())}
    assert set(rows) == {"photos/cat.png", "photos/notes.md", "photos/old/dog.JPG"}
    inputs = [each for call in calls for each in call.inputs]
    assert inputs == [Picture(FILES["png"]), "alpha", Picture(FILES["jpeg"])]
    calls.clear()
    (folder / "cat.png").write_bytes(FILES["gif"])
    assert (await run(served, job())).unchanged == 2
    assert [list(call.inputs) for call in calls] == [[Picture(FILES["gif"])]]


async def test_equal_pictures_are_one_where_ids_are_hashes(
    folder: Path, served: Served, tmp_path: Path
) -> None:
    """By `--id sha256` two files of one picture have one row, and a text that is empty is no picture."""
    (folder / "copy.png").write_bytes(FILES["png"])
    (folder / "empty.jsonl").write_text('{"text": ""}')
    job = CorpusJob(sources_of(folder), tmp_path / "out.jsonl", id_kind=IdKind.SHA256, appends=True)
    summary = await run(served, job)
    assert (summary.rows, summary.doubled) == (4, 1)


def test_ids_and_hashes_tell_pictures_from_texts() -> None:
    """A picture's row has an id and a hash of its file; those of a text are what they were."""
    maker = RowMaker(IdKind.SHA256)
    one, other = (Record("a", "", "a", picture=Picture(FILES[name])) for name in ("png", "gif"))
    text = Record("a", "", "a")
    assert len({maker.document(record) for record in (one, other, text)}) == 3
    assert len({maker.content_hash(record) for record in (one, other, text)}) == 3
    (row,) = maker.rows(one, [(0, 0)], "")
    assert (row.id, row.text) == (maker.document(one), "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chunking": Chunking(SplitterKind.TOKENS)}, "not cut into chunks"),
        ({"options": TextOptions(form=OutputForm.SPARSE)}, "no weights of terms"),
        ({"columns": Columns(context="about")}, "no columns"),
    ],
)
def test_what_pictures_do_not_go_with(folder: Path, changes: dict[str, Any], reason: str) -> None:
    """Chunks, other outputs and contexts are refused before any work."""
    job = dataclasses.replace(CorpusJob(sources_of(folder), folder / "out.jsonl"), **changes)
    with pytest.raises(FormatError, match=reason):
        scan_job(job)


async def test_a_broken_picture_is_named(folder: Path, served: Served, tmp_path: Path) -> None:
    """The error of a picture says which file it is."""
    (folder / "broken.webp").write_bytes(b"broken")
    with pytest.raises(FormatError, match=r"broken\.webp: this is no picture"):
        await run(served, CorpusJob(sources_of(folder), tmp_path / "out.jsonl"))


async def test_a_server_gets_data_urls() -> None:
    """By `--url` pictures go as parts of data URLs, texts as they are, in the OpenAI dialect."""
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        vector = base64.b64encode(bytes(32)).decode()
        rows = [{"embedding": vector}] * len(bodies[-1]["input"])
        return httpx.Response(200, json={"data": rows, "usage": {"total_tokens": 400}})

    server = ServerEmbedder("http://server/v1", key="", model="")
    server._server.http = httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="http://server"
    )
    embedded = await server.embed(["alpha", Picture(FILES["png"])], TextOptions())
    assert embedded.vectors.shape == (2, 8)  # type: ignore[union-attr]  # dense vectors are an array
    text, part = bodies[0]["input"]
    assert (text, part["type"]) == ("alpha", "image_url")
    _, content = part["image_url"]["url"].split("base64,")
    assert base64.b64decode(content) == FILES["png"]


def test_calls_hold_few_pictures_and_few_bytes() -> None:
    """However fast a model is, a call has no more pictures than fit into memory and a request."""
    pacer = CallPacer(PaceLimits(1.5, 4, 1024, 1_000_000, 2048), clock=lambda: 0.0)
    small = [Picture(encoded(pixels(), "PNG"))] * 1000
    for _ in range(30):
        taken = pacer.take(small)
        pacer.done(small[:taken], 200 * taken, 0.001)
    assert pacer.size_tokens > 20_000
    assert 1 < pacer.take(small) <= 2 * MAX_PICTURES
    large = [Picture(bytes(PICTURE_BYTES // 4))] * 100
    assert pacer.take(large) == 4
    # What texts take is not learnt from pictures.
    assert pacer.estimate("alpha" * 8) == 10
