"""Rows of Parquet files and their ids: how many there are, and whether one comes twice."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.ray.folders import ENDING, ArrowPath, SourceFiles

# What Ray Data has begun to write.
PENDING: Final = f".pending{ENDING}"


def count_rows(folder: ArrowPath) -> int:
    """Return the number of rows of a folder's Parquet files, by their footers; 0 where there is no folder."""
    import pyarrow.parquet as pq

    count = 0
    for entry in folder.entries():
        if entry.path.endswith(ENDING) and not entry.path.endswith(PENDING):
            count += pq.read_metadata(entry.path, filesystem=folder.filesystem).num_rows
    return count


def refuse_doubled_ids(sources: SourceFiles, column: str) -> int:
    """Refuse ids that come twice, of which a run that is gone on with would lose one; returns the number of rows.

    The column of ids alone is read, here, and eight bytes a row are kept; only where two are equal are the ids
    themselves compared.

    Raises:
        FormatError: One comes twice, or a row has none.
    """
    parts = [id_hashes(ids, column) for ids in _ids(sources, column)]
    ordered = np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)
    doubled = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(doubled):
        counts: Counter[Any] = Counter()
        for ids in _ids(sources, column):
            is_suspect = np.isin(id_hashes(ids, column), doubled)
            counts.update(id_ for id_, is_ in zip(ids.to_pylist(), is_suspect, strict=True) if is_)
        name, times = counts.most_common(1)[0]
        if times > 1:
            raise FormatError(
                f"column '{column}': the id {name} comes {times} times; a run that is gone on with would lose all but "
                "one, so let each row have its own"
            )
    return len(ordered)


def id_hashes(ids: Any, column: str) -> NDArray[np.uint64]:  # noqa: ANN401 - pyarrow has no types
    """Return 64 bits of each of some ids.

    Raises:
        FormatError: A row has no id, or one that is neither text nor a whole number.
    """
    import pyarrow as pa

    if ids.null_count:
        raise FormatError(f"column '{column}': a row has no id")
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.to_numpy().astype(np.uint64))
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise FormatError(f"column '{column}': ids must be text or whole numbers, not {ids.type}")
    # Comes with Ray Data, and hashes ten times faster than a loop could.
    from pandas.util import hash_array

    hashes = hash_array(np.asarray(ids.to_pylist(), object), categorize=False)
    return np.asarray(hashes, np.uint64)


def _ids(sources: SourceFiles, column: str) -> Iterator[Any]:
    """Yield the ids of all files, as arrays.

    Raises:
        FormatError: A file cannot be read, or has no such column.
    """
    import pyarrow as pa
    from pyarrow.dataset import dataset

    try:
        files = dataset(sources.paths, filesystem=sources.filesystem, format="parquet")
        for batch in files.to_batches(columns=[column]):
            yield batch.column(0)
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise FormatError(f"the ids cannot be read: {error}") from error
