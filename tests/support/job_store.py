"""A job store's files without a runner: what the routes and the runner do in several threads, done here at once."""

from pathlib import Path

from nestvec.jobs.store import JobStore
from nestvec.jobs.types import StoredFile


def add_file(store: JobStore, file: StoredFile, content: Path, max_stored_bytes: int) -> None:
    """Take over a file, as `JobRunner.add_file` does; where it is refused its content is gone again.

    Raises:
        QuotaError: The owner's files would be too large.
    """
    name = store.content_name(file.id)
    store.objects.put(name, content)
    try:
        store.note_file(file, max_stored_bytes, "")
    except BaseException:
        store.objects.delete([name])
        raise


def delete_file(store: JobStore, file_id: str, owner: str) -> None:
    """Delete a file, as its route does."""
    store.forget_file(file_id, owner)
    store.delete_content(file_id)


def sweep(store: JobStore) -> None:
    """Delete what has expired and what nothing knows, as the runner does from time to time."""
    store.sweep_contents(*store.sweep_rows())
