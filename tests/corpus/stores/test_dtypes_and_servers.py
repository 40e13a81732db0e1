"""What only some stores have: other dtypes, servers, and manifests of what they hold."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.cli import group
from nestvec.corpus.stores.registry import find_store
from nestvec.errors import ArtefactError, FormatError

from tests.corpus.stores.cases import (
    CASES,
    WARNINGS_OF_LIBRARIES,
    documents_in,
    installed,
    layout_of,
    open_reader,
    open_writer,
    row_of,
    skip_module_without_stores,
    unit_vectors,
)
from tests.support.services import free_port
from tests.support.tiny import write_tiny_bert

skip_module_without_stores()

pytestmark = WARNINGS_OF_LIBRARIES
BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("lancedb", "float16"),
        ("lancedb", "ubinary"),
        ("qdrant", "float16"),
        ("faiss", "float16"),
        ("faiss", "int8"),
        ("faiss", "ubinary"),
        ("faiss", "binary"),
        ("usearch", "float16"),
        ("usearch", "int8"),
        ("usearch", "ubinary"),
        ("usearch", "binary"),
    ],
)
def test_other_dtypes_are_kept_and_searched(name: str, dtype: str, tmp_path: Path) -> None:
    """Each vector finds itself first, twice over, after some were replaced; the score is that of equal vectors."""
    address = installed(BY_NAME[name]).address(tmp_path)
    unit = unit_vectors(200, width=64)
    if dtype == "float16":
        vectors = unit.astype("float16")
    elif dtype == "int8":
        vectors = (unit * 127 / np.abs(unit).max()).round().astype("int8")
    else:
        vectors = np.packbits(unit > 0, axis=1)
        vectors = vectors if dtype == "ubinary" else (vectors.astype("int16") - 128).astype("int8")
    plain = layout_of(address, columns={})
    metadata = {**plain.metadata, "nestvec.output_dtype": dtype, "nestvec.dimensions": "64"}
    layout = replace(plain, metadata=metadata, width=vectors.shape[1], dtype=vectors.dtype.name)
    rows = [row_of(layout, n) for n in range(200)]
    store = open_writer(address, layout)
    store.write(rows, vectors[::-1])
    store.commit()
    store.finish()
    store.close()
    store = open_writer(address, layout)
    store.write(rows, vectors)
    store.commit()
    store.finish()
    store.close()
    reader = open_reader(address)
    for number in (0, 77, 199):
        first = reader.search(vectors[number], 3)[0]
        assert str(first.id) == str(rows[number].id)
        if dtype != "int8" or name == "usearch":
            assert first.score == pytest.approx(1.0, abs=2e-3)
    reader.close()


def wait_for_port(port: int) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return


@pytest.mark.process
def test_a_chroma_server_takes_rows_as_its_folder_does(tmp_path: Path) -> None:
    """Rows are upserted and removed over HTTP; a server that is not there is named at once."""
    installed(BY_NAME["chroma"])
    port = free_port()
    address = f"chroma://127.0.0.1:{port}/docs"
    layout = layout_of(address)
    with pytest.raises(ArtefactError, match=f"127.0.0.1:{port}/docs: "):
        open_writer(address, layout)
    program = Path(sys.executable).parent / "chroma"
    server = subprocess.Popen(
        [program, "run", "--path", tmp_path / "data", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
    )
    try:
        wait_for_port(port)
        store = open_writer(address, layout)
        store.write([row_of(layout, n) for n in range(40)], unit_vectors(40))
        store.commit()
        store.remove({row_of(layout, 0).document: ""})
        store.finish()
        assert len(documents_in(store)) == 19
        store.close()
        reader = open_reader(address)
        assert str(reader.search(unit_vectors(40)[9], 1)[0].id) == str(row_of(layout, 9).id)
        reader.close()
    finally:
        server.kill()
        server.wait()


def test_a_qdrant_server_that_is_not_there_is_named() -> None:
    """The error names the address, whatever the library raises."""
    installed(BY_NAME["qdrant"])
    address = f"qdrant://127.0.0.1:{free_port()}/docs"
    with pytest.raises(ArtefactError, match=r"/docs: .*refused"):
        open_writer(address, layout_of(address))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("qdrant://host:6333/", "name a collection"),
        ("qdrant://host/folder/docs", "a local folder as in"),
        ("qdrant://key@host/docs", "keys come from the environment"),
        ("lancedb://docs", "name a folder and a table"),
        ("lancedb://folder/a b", "name a collection"),
        ("chroma://./folder/ab", "3 characters"),
        ("no-such-folder/x.faiss", "no such folder"),
    ],
)
def test_wrong_addresses_are_refused_before_any_work(address: str, said: str) -> None:
    """An address that cannot be is refused by `check`, and says how it should be."""
    kind = find_store(address)
    assert kind is not None
    with pytest.raises(FormatError, match=said):
        kind.check(address)


def test_an_unknown_scheme_is_refused() -> None:
    """The known ones are listed."""
    with pytest.raises(FormatError, match="known: lancedb, qdrant"):
        find_store("redis://host/docs")


@pytest.mark.process
def test_a_manifest_tells_whether_a_store_still_holds_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run that changes a document, the manifest of the run before no longer holds; its own does."""
    installed(BY_NAME["faiss"])
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_tiny_bert(tmp_path / "model")
    (tmp_path / "docs").mkdir()
    for n in range(3):
        (tmp_path / f"docs/{n}.md").write_text(f"# Title {n}\n\nalpha beta {n}\n")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(group, arguments)

    def embed(manifest: str) -> None:
        flags = ("--model", "model", "--log-level", "warning", "--manifest", manifest)
        result = run("embed", "docs", "out.faiss", "--with-text", *flags)
        assert result.exit_code == 0, result.output

    embed("one.json")
    assert json.loads((tmp_path / "one.json").read_text())["content"]["rows"] == 3
    assert run("verify", "one.json").exit_code == 0
    (tmp_path / "docs/1.md").write_text("# Title 1\n\ngamma\n")
    assert "docs/1.md: has changed" in str(run("verify", "one.json").exception)
    embed("two.json")
    assert run("verify", "two.json").exit_code == 0
    refused = str(run("verify", "one.json", "--skip-sources").exception)
    assert "out.faiss: has changed" in refused
    assert "holds 3 rows, of then 3, of other contents" in refused
    shown = run("search", "out.faiss", "gamma", "--model", "model", "--limit", "2")
    assert [len(line.split()) > 3 for line in shown.output.splitlines()] == [True] * 3
    found = run("search", "out.faiss", "gamma", "--model", "model", "--json", "--limit", "3")
    lines = [json.loads(line) for line in found.output.splitlines()]
    assert {line["document"] for line in lines} == {"docs/0.md", "docs/1.md", "docs/2.md"}
    assert lines == sorted(lines, key=lambda line: -line["score"])
    other = run("search", "out.faiss", "gamma", "--model", "model", "--precision", "int8")
    assert "the store's vectors are of space" in str(other.exception)
