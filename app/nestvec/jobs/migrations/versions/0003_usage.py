"""Keeps what each key uses in each month beside files and batches.

A released migration never changes: the next version of the tables is a file of its own. There is no way back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table of usage, unless the counter of usage, which may open the database first, has made it."""
    if sa.inspect(op.get_bind()).has_table("usage"):
        return
    op.create_table(
        "usage",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("month", sa.String(7), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )
