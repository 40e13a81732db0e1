"""Cuts batches into chunks that runners claim under leases; notes what each owner was served, and room for uploads.

A released migration never changes: the next version of the tables is a file of its own. There is no way back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables of chunks, owners and uploads, and the columns of the leases on batches."""
    op.create_table(
        "chunks",
        sa.Column("batch_id", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first_request", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("offset_bytes", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("holder", sa.String(64)),
        sa.Column("until_s", sa.Float(53)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("output_part", sa.Text),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("error_part", sa.Text),
        sa.Column("error_bytes", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.String(16)),
    )
    op.create_index("ix_chunks_batch_id_state", "chunks", ["batch_id", "state"])
    op.create_table(
        "owners",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("served_tokens", sa.Float(53), nullable=False),
    )
    with op.batch_alter_table("batches") as table:
        # None until the input has been cut, which is also how batches of the version before go on.
        table.add_column(sa.Column("chunks", sa.Integer))
        table.add_column(sa.Column("holder", sa.String(64)))
        table.add_column(sa.Column("until_s", sa.Float(53)))
        table.add_column(
            sa.Column("reserved_bytes", sa.BigInteger, nullable=False, server_default="0")
        )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False, index=True),
        sa.Column("reserved_bytes", sa.BigInteger, nullable=False),
        sa.Column("until_s", sa.BigInteger, nullable=False),
    )
