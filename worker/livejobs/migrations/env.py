"""How Alembic reaches the database: by the connection that `livejobs.database.migrate` opens."""

from alembic import context
from sqlalchemy import text

from livejobs.database import VERSION_TABLE
from livejobs.models import Base

connection = context.config.attributes["connection"]
schema = context.config.attributes["schema"]

if schema is not None:
    quoted = connection.dialect.identifier_preparer.quote(schema)
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted}"))
if connection.dialect.name == "postgresql":
    # Two processes that start at once migrate one after the other.
    connection.execute(text("SELECT pg_advisory_xact_lock(7305807110428155)"))
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    version_table_schema=schema,
)
with context.begin_transaction():
    context.run_migrations()
