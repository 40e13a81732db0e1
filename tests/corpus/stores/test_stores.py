"""What every store promises: rows by id, old chunks gone, no mixture, nothing lost by a kill, true neighbours."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.corpus.store_writer import IdKind, StoreLayout
from nestvec.errors import ArtefactError, FormatError

from tests.corpus.stores.cases import (
    CASES,
    WARNINGS_OF_LIBRARIES,
    Case,
    documents_in,
    installed,
    layout_of,
    open_reader,
    open_writer,
    row_of,
    skip_module_without_stores,
    unit_vectors,
)

skip_module_without_stores()

pytestmark = WARNINGS_OF_LIBRARIES
WRITE_AND_WAIT = """
import sys, time
from tests.corpus.stores.cases import layout_of, open_writer, row_of, unit_vectors
address = sys.argv[1]
layout = layout_of(address)
store = open_writer(address, layout)
store.write([row_of(layout, n) for n in range(100)], unit_vectors(100))
store.commit()
store.write([row_of(layout, n) for n in range(100, 120)], unit_vectors(20))
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each store whose package is there."""
    return installed(request.param)


def fill(address: str, layout: StoreLayout, count: int = 10) -> None:
    """Write rows of random vectors, and close the store."""
    store = open_writer(address, layout)
    store.write([row_of(layout, n) for n in range(count)], unit_vectors(count))
    store.commit()
    store.finish()
    store.close()


def test_rows_are_replaced_by_id_and_old_chunks_go(case: Case, tmp_path: Path) -> None:
    """A changed document keeps no row of before; the others stay; all that was kept comes back."""
    address = case.address(tmp_path)
    layout = layout_of(address)
    fill(address, layout)
    store = open_writer(address, layout)
    before = row_of(layout, 0)
    assert documents_in(store)[before.document, before.content_hash] == 2
    # The document has one chunk now, under the id of its first.
    changed = replace(before, chunks=1, content_hash="b" * 32, text="changed")
    vector = unit_vectors(1, seed=7)
    store.write([changed], vector)
    store.commit()
    store.remove({changed.document: changed.content_hash})
    store.remove({row_of(layout, 9).document: ""})
    store.finish()
    assert documents_in(store) == {
        (changed.document, "b" * 32): 1,
        **{(row_of(layout, n).document, "a" * 32): 2 for n in (2, 4, 6)},
    }
    store.close()
    reader = open_reader(address)
    assert reader.metadata == layout.metadata
    first, *others = reader.search(vector[0], 20)
    reader.close()
    assert (str(first.id), first.document, first.text) == (
        str(changed.id),
        changed.document,
        "changed",
    )
    assert first.score == pytest.approx(1.0, abs=1e-5)
    expected = {str(row_of(layout, n).id) for n in range(2, 8)}
    assert {str(hit.id) for hit in others} == expected
    texts = {str(row_of(layout, n).id): row_of(layout, n).text for n in range(2, 8)}
    assert all(hit.text == texts[str(hit.id)] for hit in others)


def test_a_document_that_comes_back_is_found(case: Case, tmp_path: Path) -> None:
    """A document that was removed and is there again has its rows once, under the ids of then."""
    address = case.address(tmp_path)
    layout = layout_of(address)
    fill(address, layout)
    store = open_writer(address, layout)
    store.remove({row_of(layout, 0).document: ""})
    store.finish()
    store.close()
    fill(address, layout)
    reader = open_reader(address)
    assert len(list(reader.stored())) == 10
    found = reader.search(unit_vectors(10)[0], 10)
    reader.close()
    assert str(found[0].id) == str(row_of(layout, 0).id)
    assert len({str(hit.id) for hit in found}) == 10


def test_other_vectors_are_refused(case: Case, tmp_path: Path) -> None:
    """Vectors of another space, size or dtype, other outputs, and names of ours as columns are refused in words."""
    address = case.address(tmp_path)
    layout = layout_of(address)
    fill(address, layout)
    for key, value in (("space", "space-b"), ("dimensions", "16"), ("quantization", "ranges")):
        other = replace(layout, metadata={**layout.metadata, f"nestvec.{key}": value})
        with pytest.raises(FormatError, match=f"'{value}'"):
            open_writer(address, other)
    many = replace(layout, metadata={**layout.metadata, "nestvec.output": "multi-vector"})
    with pytest.raises(FormatError, match="multi-vector"):
        open_writer(address, many)
    unknown = replace(layout, metadata={**layout.metadata, "nestvec.output_dtype": "uint8"})
    with pytest.raises(FormatError, match="--output-dtype may be float32"):
        open_writer(address, unknown)
    with pytest.raises(FormatError, match="'document'"):
        open_writer(address, replace(layout, columns={"document": layout.columns["title"]}))
    with pytest.raises(FormatError, match="no such"):
        open_reader(address.replace("docs", "other"))


@pytest.mark.process
def test_a_kill_loses_nothing_that_was_committed(case: Case, tmp_path: Path) -> None:
    """After kill -9 the committed rows are there; the same rows again make no second ones."""
    address = case.address(tmp_path)
    layout = layout_of(address)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WRITE_AND_WAIT, address],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    store = open_writer(address, layout)
    counts = documents_in(store)
    assert all(counts[row_of(layout, n).document, "a" * 32] == 2 for n in range(100))
    store.write([row_of(layout, n) for n in range(120)], unit_vectors(120))
    store.commit()
    store.finish()
    assert set(documents_in(store).values()) == {2}
    assert len(documents_in(store)) == 60
    store.close()
    reader = open_reader(address)
    assert len({str(hit.id) for hit in reader.search(unit_vectors(1)[0], 200)}) == 120
    reader.close()


def test_the_ten_nearest_are_the_true_ones(case: Case, tmp_path: Path) -> None:
    """Of the ten nearest, an exact store finds all, and one with a graph at least 99 of 100."""
    address = case.address(tmp_path)
    layout = replace(layout_of(address), columns={})
    count, queries = 3000, 40
    # Vectors in groups, as those of texts are.
    centres = unit_vectors(50, seed=1)[np.random.default_rng(2).integers(0, 50, count + queries)]
    vectors = centres + 0.6 * unit_vectors(count + queries, seed=3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [row_of(layout, n) for n in range(count)]
    store = open_writer(address, layout)
    for first in range(0, count, 500):
        store.write(rows[first : first + 500], vectors[first : min(first + 500, count)])
        store.commit()
    store.finish()
    store.close()
    reader = open_reader(address)
    found = 0
    for query in vectors[count:]:
        nearest = np.argsort(-(vectors[:count] @ query))[:10]
        hits = {str(hit.id) for hit in reader.search(query, 10)}
        found += len(hits & {str(rows[n].id) for n in nearest})
    reader.close()
    recall = found / (10 * queries)
    print(f"recall of the ten nearest in {case.name}: {recall}")
    assert recall == 1.0 if case.exact else recall >= 0.99


def test_a_second_writer_of_an_index_file_is_refused(tmp_path: Path) -> None:
    """Two runs that write one index file would lose each other's rows: the second is told so."""
    installed(CASES[3])
    address = CASES[3].address(tmp_path)
    layout = layout_of(address)
    store = open_writer(address, layout)
    with pytest.raises(ArtefactError, match="another process"):
        open_writer(address, layout)
    store.close()


def test_ids_that_qdrant_cannot_keep(tmp_path: Path) -> None:
    """Qdrant takes UUIDs and numbers only, and says how to have them."""
    installed(CASES[1])
    address = CASES[1].address(tmp_path)
    with pytest.raises(FormatError, match="--id may be uuid5 or int"):
        open_writer(address, layout_of(address, id_kind=IdKind.NAME))
