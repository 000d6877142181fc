"""How Alembic reaches the ledger: through the connection that `coordinator.schema` gives it."""

from alembic import context

from coordinator.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
