"""What Alembic runs; the connection comes from `JobStore`."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, render_as_batch=True)  # SQLite alters tables by copying
with context.begin_transaction():
    context.run_migrations()
