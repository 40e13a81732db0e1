"""The table of usage, in the database of files and batches."""

from typing import Final

import sqlalchemy as sa

usage_schema: Final = sa.MetaData()
usage: Final = sa.Table(
    "usage",
    usage_schema,
    sa.Column("key_id", sa.String(64), primary_key=True),
    # In UTC, as 2026-11.
    sa.Column("month", sa.String(7), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
)
