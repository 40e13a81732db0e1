"""The script that Alembic runs; the connection comes from `JobStore`."""

from alembic import context

connection = context.config.attributes["connection"]
# SQLite alters tables by copying them.
context.configure(connection=connection, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
