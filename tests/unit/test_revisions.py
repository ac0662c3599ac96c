"""What is known of the migrations without Alembic."""

from __future__ import annotations

from importlib import resources

from alembic.script import ScriptDirectory

from livejobs.database import known_revisions


def test_revisions_are_those_that_alembic_finds() -> None:
    script = ScriptDirectory(str(resources.files("livejobs") / "migrations"))
    needed, known = known_revisions()
    assert needed == script.get_current_head()
    assert known == {revision.revision for revision in script.walk_revisions()}
