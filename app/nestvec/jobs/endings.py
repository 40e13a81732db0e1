"""Makes a batch ready to be finalized once all its chunks are done."""

import json
import secrets

import sqlalchemy as sa

from nestvec.jobs.tables import DONE, batches, chunks
from nestvec.jobs.types import Status


def end_if_done(
    connection: sa.Connection, batch_id: str, now: int, outcome: Status | None = None
) -> bool:
    """Make a locked batch ready to be finalized where all its chunks are done.

    Args:
        connection: The transaction.
        batch_id: Id of the batch.
        now: Unix time in seconds.
        outcome: Status that it is to get; None goes by what became of its chunks.

    Returns:
        Whether they are.
    """
    mine = chunks.c.batch_id == batch_id
    if connection.execute(sa.select(chunks.c.number).where(mine, chunks.c.state != DONE)).first():
        return False
    batch = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().one()
    refused = sa.select(chunks.c.number).where(mine, chunks.c.refused == Status.EXPIRED.value)
    if outcome is None and batch["status"] == Status.CANCELLING:
        outcome = Status.CANCELLED
    elif outcome is None:
        has_expired = connection.execute(refused).first() is not None
        outcome = Status.EXPIRED if has_expired else Status.COMPLETED
    times = {Status.FINALIZING.value: now, **json.loads(batch["times"])}
    connection.execute(
        batches.update()
        .where(batches.c.id == batch_id)
        .values(
            status=Status.FINALIZING.value,
            outcome=outcome.value,
            times=json.dumps(times),
            output_file_id=_new_file_id() if batch["output_bytes"] else None,
            error_file_id=_new_file_id() if batch["error_bytes"] else None,
            holder=None,
            until_s=None,
        )
    )
    return True


def _new_file_id() -> str:
    return f"file-{secrets.token_hex(16)}"
