"""Documents kept and searched, on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Row, delete, func, inspect, select, text, update

from livejobs.database import AsyncDatabase, Database, Steps, alembic_config, migrate
from livejobs.documents import (
    CHUNKS_IN_A_BATCH,
    NewChunk,
    NewDocument,
    chunks,
    documents,
    replace_document,
)
from livejobs.searching import Hit, hits, search
from livejobs.settings import Settings
from livejobs.words import stems

GARDEN = "A quiet garden behind the well-known house; see livejobs.settings & <b>gates</b>."


def new_document(owner: str = "ann", name: str = "book.pdf", **changes: Any) -> NewDocument:
    fields: dict[str, Any] = {
        "media_type": "application/pdf",
        "size": 1000,
        "sha256": "0" * 64,
        "title": "Book",
        "pages": 2,
        "chunks": 1,
        "job_id": "job-1",
    }
    return NewDocument(owner=owner, name=name, **fields | changes)


def pieces(*texts: str) -> list[NewChunk]:
    return [NewChunk(ordinal, ordinal + 1, text) for ordinal, text in enumerate(texts)]


def searching(
    owner: str | None, query: str, limit: int, dialect: str, language: str | None = None
) -> Steps[Sequence[Row[Any]]]:
    return (yield search(owner, query, limit, dialect, language))


def find(
    database: Database,
    query: str,
    owner: str | None = "ann",
    limit: int = 10,
    language: str | None = None,
) -> list[Hit]:
    dialect = database.engine.dialect.name
    rows = database.read(searching(owner, query, limit, dialect, language))
    return hits(rows, query, language)


def count(database: Database, table: Any = chunks) -> int:
    with database.begin() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def check_index(database: Database) -> None:
    """FTS5 compares its index with the chunks; PostgreSQL's column cannot be wrong."""
    if database.engine.dialect.name == "sqlite":
        with database.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO livejobs_chunks_fts (livejobs_chunks_fts, rank) "
                    "VALUES ('integrity-check', 1)"
                )
            )


def test_document_is_found_by_what_it_holds(database: Database) -> None:
    document_id = database.run(replace_document(new_document(), pieces("Nothing to see.", GARDEN)))
    (hit,) = find(database, "garden")
    assert (hit.document_id, hit.name, hit.page, hit.ordinal) == (document_id, "book.pdf", 2, 1)
    assert hit.snippet == (
        "A quiet <mark>garden</mark> behind the well-known house; "
        "see livejobs.settings &amp; &lt;b&gt;gates&lt;/b&gt;."
    )
    assert hit.score > 0


def test_search_finds_what_the_query_says(database: Database) -> None:
    database.run(replace_document(new_document(), pieces(GARDEN)))
    found = [
        "GARDEN",
        "house garden",
        '"quiet garden"',
        "“behind the”",
        "gard*",
        '"quiet gard"*',
        "well-known",
        "known",
        "settings",
        "livejobs.settings",
        "b",
        "gates<",
    ]
    missed = [
        "gardens",
        "gard",
        "garden meadow",
        '"garden quiet"',
        '"behind house"',
        "house NOT garden",
    ]
    assert {query: len(find(database, query)) for query in found + missed} == {
        **dict.fromkeys(found, 1),
        **dict.fromkeys(missed, 0),
    }


def test_both_databases_see_the_same_words(database: Database) -> None:
    queries = {
        "Größe, Übermut, Straße": "übermut größe straße",
        "« déjà vu »": "déjà",
        "from -5 to 3.14 on 2024-11-15": "5 14 2024-11",
        "mail ann@example.org or https://example.org/books?id=7": "example books",
        "a_b and/or v1.2 100%": "b or v1 100",
        "he said “quoted”—and left…": "quoted and left",
        "don't": "don't",
        "слово 大きい": "Слово 大き*",
        "1e5 0x1f 3rd": "1e5 0x1f 3rd",
    }
    database.run(replace_document(new_document(), pieces(*queries)))
    found = {query: [hit.ordinal for hit in find(database, query)] for query in queries.values()}
    assert found == {query: [place] for place, query in enumerate(queries.values())}


def test_accents_and_stems_count(database: Database) -> None:
    database.run(replace_document(new_document(), pieces("Übermut, running, the")))
    assert find(database, "ubermut") == []
    assert find(database, "run") == []
    assert len(find(database, "the")) == 1


ENGLISH = [
    "The runner was running along connected gardens.",
    "He runs; a connection was found.",
    "Run to the garden!",
    "Nothing of that is in here.",
]


def english(database: Database) -> None:
    stemmed = [
        NewChunk(ordinal, None, text, stems(text, "english"))
        for ordinal, text in enumerate(ENGLISH)
    ]
    database.run(replace_document(new_document(language="english"), stemmed))


def found(database: Database, query: str, language: str | None = "english") -> list[int]:
    return sorted(hit.ordinal for hit in find(database, query, language=language))


def test_forms_of_words_are_found_in_a_language(database: Database) -> None:
    english(database)
    assert {query: found(database, query) for query in FORMS} == FORMS
    assert found(database, "runs", language=None) == [1]
    assert found(database, "connect", language=None) == []
    (hit,) = find(database, "runs gardens -runner", language="english")
    assert hit.snippet == "<mark>Run</mark> to the <mark>garden</mark>!"


FORMS = {
    "run": [0, 1, 2],
    "RUNNING": [0, 1, 2],
    "runner": [0],
    "connecting": [0, 1],
    "garden run": [0, 2],
    "garden -running": [],
    "run -connection": [2],
    "run -gardens -nothing": [1],
    '"run to"': [2],
    '"runs to"': [],
    "run*": [0, 1, 2],
    "runn*": [0],
    "connect* -runn*": [1],
    'running -"along connected"': [1, 2],
    "-run": [],
    "-": [],
}


def test_each_document_has_its_own_language(database: Database) -> None:
    sent = {"german": "Die Häuser der Stadt", "french": "les maisons de la ville", None: "Häuser"}
    for language, content in sent.items():
        new = new_document(name=f"{language}.txt", language=language)
        piece = NewChunk(0, None, content, stems(content, language))
        database.run(replace_document(new, [piece]))

    def names(query: str, language: str | None) -> set[str]:
        return {hit.name for hit in find(database, query, language=language)}

    assert names("haus", "german") == {"german.txt"}
    assert names("häuser", "german") == {"german.txt", "None.txt"}
    assert names("maison", "french") == {"french.txt"}
    assert names("haus", None) == names("maison", None) == set()


def test_word_as_it_was_typed_ranks_before_its_forms(database: Database) -> None:
    texts = ["They were connecting it all.", "They will connect it all.", "A connection of it all."]
    stemmed = [NewChunk(n, None, each, stems(each, "english")) for n, each in enumerate(texts)]
    database.run(replace_document(new_document(language="english"), stemmed))
    for place, query in enumerate(["connecting", "connect", "connection"]):
        hits = find(database, query, language="english")
        assert hits[0].ordinal == place
        assert len(hits) == 3
        assert hits[0].score > hits[1].score


def test_what_is_not_wanted_is_left_out(database: Database) -> None:
    texts = ["quiet garden", "quiet garden gate", "garden quiet house", "well-known garden"]
    database.run(replace_document(new_document(), pieces(*texts)))
    wanted = {
        "garden -gate": [0, 2, 3],
        "-gate garden": [0, 2, 3],
        'garden -"quiet garden"': [2, 3],
        "garden -ga*": [],
        "garden -h* -gate": [0, 3],
        "garden -well-known": [0, 1, 2],
        "well-known": [3],
        "garden --gate": [0, 2, 3],
        'garden -"': [0, 1, 2, 3],
    }
    assert {query: found(database, query, language=None) for query in wanted} == wanted


def test_better_chunks_come_first(database: Database) -> None:
    texts = ["a garden and a lot of other words " * 5, "garden garden garden", "no hit"]
    database.run(replace_document(new_document(), pieces(*texts)))
    hits = find(database, "garden")
    assert [hit.ordinal for hit in hits] == [1, 0]
    assert hits[0].score > hits[1].score
    assert [hit.ordinal for hit in find(database, "garden", limit=1)] == [1]


def test_search_keeps_to_the_owner(database: Database) -> None:
    for owner in ("ann", "bob", ""):
        database.run(replace_document(new_document(owner), pieces(f"garden of {owner}")))
    assert [hit.snippet for hit in find(database, "garden", "bob")] == [
        "<mark>garden</mark> of bob"
    ]
    assert len(find(database, "garden", "")) == 1
    assert find(database, "garden", "cy") == []
    assert len(find(database, "garden", None)) == 3


def test_rubbish_queries_are_no_errors(database: Database) -> None:
    database.run(replace_document(new_document(), pieces(GARDEN)))
    dice = random.Random(3)
    rubbish = ["", '"', "*", "NEAR(", "text:garden", "^garden", "{a b}", "a&!|b", ":*", "'", "\\"]
    letters = "ab ö大\"'*():^{}&|!<>-+\\\x00\ud800_.,~%$"
    rubbish += ["".join(dice.choices(letters, k=dice.randint(1, 30))) for _ in range(100)]
    rubbish += ["x" * 10_000, "word " * 1000, "%s %(a)s :a ?"]
    for query in rubbish:
        for language in (None, "english", "turkish"):
            assert len(find(database, query, language=language)) <= 1
    assert find(database, "") == find(database, '"" * _') == []


def test_document_is_replaced_and_not_doubled(database: Database) -> None:
    first = database.run(replace_document(new_document(), pieces("the old garden", "more")))
    with database.begin() as connection:
        before = connection.execute(select(documents)).one()
    second = database.run(
        replace_document(new_document(title="New", pages=None, job_id="job-2"), pieces("the house"))
    )
    with database.begin() as connection:
        after = connection.execute(select(documents)).one()
    assert second == first
    assert (after.title, after.pages, after.job_id) == ("New", None, "job-2")
    assert after.created_at == before.created_at
    assert after.updated_at >= before.updated_at
    assert find(database, "garden") == []
    assert len(find(database, "house")) == count(database) == 1
    check_index(database)


def test_same_name_of_another_owner_is_another_document(database: Database) -> None:
    ids = {
        database.run(replace_document(new_document(owner, name), pieces("garden")))
        for owner, name in [("ann", "a.md"), ("ann", "b.md"), ("bob", "a.md")]
    }
    assert len(ids) == count(database, documents) == 3


def test_failed_ingest_leaves_the_earlier_version(database: Database) -> None:
    database.run(replace_document(new_document(), pieces("the old garden")))

    def breaking() -> Iterator[NewChunk]:
        yield from pieces(*["the new garden"] * (CHUNKS_IN_A_BATCH + 1))
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        database.run(replace_document(new_document(title="New"), breaking()))
    assert [hit.ordinal for hit in find(database, "old")] == [0]
    assert count(database) == 1
    check_index(database)


def test_many_chunks_go_in_batches(database: Database) -> None:
    total = 2 * CHUNKS_IN_A_BATCH + 1
    database.run(replace_document(new_document(), pieces(*(f"garden {n}" for n in range(total)))))
    assert count(database) == total
    assert find(database, f"garden {total - 1}")[0].page == total


def test_racing_ingests_leave_one_whole_version(database: Database) -> None:
    racers, rounds = 4, 5
    start = threading.Barrier(racers)
    errors: list[BaseException] = []

    def race(name: str) -> None:
        try:
            for _ in range(rounds):
                start.wait(timeout=30)
                database.run(replace_document(new_document(title=name), pieces(*[name] * 30)))
        except BaseException as error:
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=race, args=(f"racer{n}",)) for n in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.begin() as connection:
        winner = connection.execute(select(documents.c.title)).scalar_one()
        texts = connection.execute(select(chunks.c.text)).scalars().all()
    assert texts == [winner] * 30
    check_index(database)


def test_index_follows_every_change_of_a_chunk(database: Database) -> None:
    document_id = database.run(replace_document(new_document(), pieces("garden", "house")))
    with database.begin() as connection:
        connection.execute(update(chunks).where(chunks.c.ordinal == 0).values(text="meadow"))
    assert find(database, "garden") == []
    assert len(find(database, "meadow")) == 1
    with database.begin() as connection:
        connection.execute(delete(documents).where(documents.c.id == document_id))
    assert count(database) == 0
    assert find(database, "meadow OR house") == find(database, "house") == []
    check_index(database)


async def test_same_programs_run_async(settings: Settings) -> None:
    database = AsyncDatabase(settings)
    try:
        document_id = await database.run(replace_document(new_document(), pieces(GARDEN, "x")))
        for query, owner, found in [('"quiet gard"*', "ann", 1), ("x", None, 1), ("*", "ann", 0)]:
            rows = await database.read(searching(owner, query, 5, database.dialect))
            assert [row.document_id for row in rows] == [document_id] * found
    finally:
        await database.dispose()


def test_search_works_in_a_schema_of_its_own(settings: Settings) -> None:
    # SQLite has no schemas: there the setting changes nothing.
    settings = settings.model_copy(update={"database_schema": "Of its own"})
    if settings.database_url.startswith("postgres"):
        migrate(settings)
    database = Database(settings)
    try:
        database.run(replace_document(new_document(), pieces(GARDEN)))
        assert len(find(database, "garden")) == count(database) == 1
    finally:
        database.close()


@pytest.fixture
def before(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """A database with tables as they were before documents had languages."""
    sqlite = database_url.startswith("sqlite")
    url = f"sqlite:///{tmp_path}/before.db" if sqlite else database_url
    database = Database(Settings(database_url=url, database_schema="before"))
    config = alembic_config(database.settings)
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
    yield database
    if not sqlite:
        with database.begin() as connection:
            connection.execute(text("DROP SCHEMA before CASCADE"))
    database.close()


def test_documents_of_before_are_found_after_an_update(before: Database) -> None:
    sqlite = before.engine.dialect.name == "sqlite"
    schema = "" if sqlite else "before."
    columns = "id, owner, name, media_type, size, sha256, title, chunks, created_at, updated_at"
    values = "'d', 'ann', 'a.txt', 'text/plain', 1, '0', 'A', 1, '2024-11-15', '2024-11-15'"
    kept = f"INSERT INTO {schema}livejobs_documents ({columns}) VALUES ({values})"
    piece = "(document_id, ordinal, text) VALUES ('d', 0, 'the old garden')"
    with before.begin() as connection:
        connection.execute(text(kept))
        connection.execute(text(f"INSERT INTO {schema}livejobs_chunks {piece}"))
    migrate(before.settings)
    assert [hit.name for hit in find(before, '"old gard"*')] == ["a.txt"]
    assert len(find(before, "garden", language="english")) == 1
    before.run(replace_document(new_document(name="a.txt"), pieces("the new house")))
    assert find(before, "garden") == []
    assert len(find(before, "house")) == 1
    check_index(before)


@pytest.mark.parametrize("table", [documents, chunks], ids=lambda table: table.name)
def test_migrated_tables_are_as_the_models_say(database: Database, table: Any) -> None:
    found = inspect(database.engine)
    only_here = {"search"} if database.engine.dialect.name == "postgresql" else set()
    columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
    assert {name: columns[name] for name in columns if name not in only_here} == {
        column.name: column.nullable for column in table.columns
    }
    unique = {constraint["name"] for constraint in found.get_unique_constraints(table.name)}
    assert {f"uq_{table.name}_{'_'.join(names)}" for names in _unique(table)} == unique


def _unique(table: Any) -> list[list[str]]:
    constraints = (item for item in table.constraints if type(item).__name__ == "UniqueConstraint")
    return [[column.name for column in constraint.columns] for constraint in constraints]
