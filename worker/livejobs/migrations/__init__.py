"""Alembic's environment and the migrations of livejobs' tables."""
