"""Rows of Parquet files and their ids: how many there are, and whether one comes twice."""

from collections import Counter
from typing import Any, Final

import numpy as np

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

    The nodes read the ids, and eight bytes a row come here; only where two are equal are the ids themselves compared.

    Raises:
        FormatError: One comes twice, or a row has none.
    """
    parts = [
        batch["hash"]
        for batch in _ids(sources, column)
        .map_batches(hash_ids, fn_args=(column,), batch_format="pyarrow")
        .iter_batches(batch_format="numpy", batch_size=None)
    ]
    ordered = np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.uint64)
    doubled = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(doubled):
        suspects = _ids(sources, column).map_batches(
            of_hashes, fn_args=(column, doubled), batch_format="pyarrow"
        )
        counts = Counter(row[column] for row in suspects.take_all())
        name, times = counts.most_common(1)[0]
        if times > 1:
            raise FormatError(
                f"column '{column}': the id {name} comes {times} times; a run that is gone on with would lose all but "
                "one, so let each row have its own"
            )
    return len(ordered)


def hash_ids(table: Any, column: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return a table of 64 bits of each id.

    Raises:
        FormatError: A row has no id, or one that is neither text nor a whole number.
    """
    import pyarrow as pa

    return pa.table({"hash": _hashes(table.column(column), column)})


def of_hashes(table: Any, column: str, wanted: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the ids whose hash is among some."""
    import pyarrow as pa

    ids = table.column(column)
    return pa.table({column: ids.filter(pa.array(np.isin(_hashes(ids, column), wanted)))})


def _hashes(ids: Any, column: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return 64 bits of each id.

    Raises:
        FormatError: As `hash_ids`.
    """
    import pandas as pd
    import pyarrow as pa

    if ids.null_count:
        raise FormatError(f"column '{column}': a row has no id")
    if pa.types.is_integer(ids.type):
        return ids.to_numpy().astype(np.uint64)
    if not (pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type)):
        raise FormatError(f"column '{column}': ids must be text or whole numbers, not {ids.type}")
    return pd.util.hash_array(np.asarray(ids.to_pylist(), object), categorize=False)


def _ids(sources: SourceFiles, column: str) -> Any:  # noqa: ANN401 - Ray is absent where types are checked
    """Return a dataset of the ids alone."""
    import ray

    dataset = ray.data.read_parquet(sources.paths, filesystem=sources.filesystem, columns=[column])
    dataset.context.enable_progress_bars = False
    return dataset
