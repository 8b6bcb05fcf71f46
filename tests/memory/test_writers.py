"""Who can write to a table, and that nobody does once the writers are shut out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest
from changes import emptied, lasting_pair
from psycopg import sql
from stores import Pair, fill

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Verdict
from orchestra_lib.local.databases import LocalState
from orchestra_lib.memory.writers import (
    APPLICATION_RIGHTS,
    application_grants,
    close_to,
    grants_for,
    open_to,
    require_no_writes_under_way,
    write_grants,
    writer_checks,
    writers,
)

TABLE = sql.Identifier("memories")
_numbers = count(1)


@pytest.fixture(scope="module")
def lasting(servers: LocalState) -> Iterator[Pair]:
    with lasting_pair(servers, "written_by") as pair:
        yield pair


@pytest.fixture
def pair(lasting: Pair) -> Iterator[Pair]:
    """Both databases for one test, empty again after it."""
    yield lasting
    for conninfo in (lasting.source, lasting.target):
        emptied(conninfo)


class Roles:
    """Roles of one test: made under names of their own, since they are the whole server's."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.suffix = f"_{next(_numbers)}"
        self.made: list[str] = []

    def make(self, name: str, attributes: str = "LOGIN", member_of: str | None = None) -> str:
        role = name + self.suffix
        self.run(f"CREATE ROLE {role} {attributes}" + (f" IN ROLE {member_of}" if member_of else ""))
        self.made.append(role)
        return role

    def run(self, statement: str) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement)

    def session(self, role: str) -> psycopg.Connection:
        return psycopg.connect(self.conninfo, user=role, autocommit=True)

    def drop(self) -> None:
        self.run("DROP TABLE memories")  # what was granted on it would keep the roles
        for role in reversed(self.made):
            self.run(f"REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
def roles(pair):
    fill(pair.source, 3)
    made = Roles(pair.source)
    yield made
    made.drop()


@pytest.fixture
def admin(pair):
    with connect(pair.source) as connection:
        yield connection


def failing(connection, named, claim=""):
    rows = writer_checks(connection, TABLE, named, "source")
    return {row.claim: row.note for row in rows if row.verdict is Verdict.FAIL and claim in row.claim}


def write(session):
    session.execute("UPDATE memories SET version = version + 1 WHERE id = 'id-00000001'")


def test_direct_rights_membership_columns_ownership_and_superusers_are_all_found(roles, admin):
    app, reader = roles.make("app"), roles.make("reader")
    group = roles.make("team", "NOLOGIN")
    member = roles.make("member", member_of=group)
    by_column, owner, root = roles.make("by_column"), roles.make("owner"), roles.make("root", "LOGIN SUPERUSER")
    roles.run(f"GRANT INSERT ON memories TO {app}; GRANT SELECT ON memories TO {reader}")
    roles.run(f"GRANT DELETE ON memories TO {group}; GRANT UPDATE (content) ON memories TO {by_column}")
    roles.run(f"ALTER TABLE memories OWNER TO {owner}")
    found = {writer.role: writer for writer in writers(admin, TABLE)}
    assert set(found) == {app, member, by_column, owner, root, "postgres"}
    assert found[member].through == (group,)
    assert found[owner].through == (owner,)
    assert found[root].superuser
    assert found[root].through == ()


@pytest.mark.parametrize("how", ["GRANT INSERT ON memories TO {}", "ALTER TABLE memories OWNER TO {}"])
def test_a_writer_that_nobody_named_fails_the_check_by_its_name(roles, admin, how):
    app, stranger = roles.make("app"), roles.make("stranger")
    roles.run(f"GRANT INSERT ON memories TO {app}")
    assert failing(admin, [app]) == {}
    roles.run(how.format(stranger))
    (note,) = failing(admin, [app], "not among the writers").values()
    assert note.startswith(stranger)


def test_a_right_of_everybody_makes_everybody_a_writer(roles, admin):
    app, stranger = roles.make("app"), roles.make("stranger")
    roles.run("GRANT INSERT ON memories TO PUBLIC")
    assert (
        f"{stranger} through PUBLIC"
        in failing(admin, [app])["roles that can write and are not among the writers on the source"]
    )


def test_a_member_in_name_only_is_no_writer(roles, admin):
    group = roles.make("team", "NOLOGIN")
    roles.run(f"GRANT INSERT ON memories TO {group}")
    idle, switching = roles.make("idle"), roles.make("switching")
    roles.run(f"GRANT {group} TO {idle} WITH INHERIT FALSE, SET FALSE; GRANT {group} TO {switching} WITH INHERIT FALSE")
    assert {writer.role for writer in writers(admin, TABLE)} == {switching, "postgres"}


def test_writers_whom_no_revoke_shuts_out_are_refused(roles, admin):
    root, everywhere = roles.make("root", "LOGIN SUPERUSER"), roles.make("everywhere", member_of="pg_write_all_data")
    (note,) = failing(admin, [root, everywhere, "postgres", "nobody"]).values()
    assert note.startswith(
        f"nobody (there is no such role), {everywhere} (a member of pg_write_all_data), "
        f"postgres (a superuser), {root} (a superuser): "
    )


def test_superusers_are_told_and_not_judged(roles, admin):
    root = roles.make("root", "LOGIN SUPERUSER")
    told = [row for row in writer_checks(admin, TABLE, [], "source") if row.verdict is Verdict.NOTED]
    assert [row.value for row in told] == [f"postgres, {root}"]


def test_a_right_that_another_than_the_owner_gave_is_refused(roles, admin):
    dba, app = roles.make("dba"), roles.make("app")
    roles.run(f"GRANT INSERT ON memories TO {dba} WITH GRANT OPTION")
    roles.run(f"SET ROLE {dba}; GRANT INSERT ON memories TO {app}")
    (note,) = failing(admin, [dba, app]).values()
    assert note.startswith(f"INSERT of {app}, by {dba}")


def test_a_session_that_may_not_revoke_is_told_so_beforehand(roles):
    weak, app = roles.make("weak"), roles.make("app")
    roles.run(f"GRANT INSERT ON memories TO {app}")
    with roles.session(weak) as session:
        (note,) = failing(session, [app]).values()
    assert note == f"those of postgres, pg_signal_backend: grant them to {weak}"


def test_closing_ends_sessions_in_the_middle_of_a_transaction_and_lets_nobody_back(roles, admin):
    app = roles.make("app")
    group = roles.make("team", "NOLOGIN")
    member = roles.make("member", member_of=group)
    roles.run(f"GRANT SELECT, UPDATE ON memories TO {app}, {group}")
    inside, idle = roles.session(app), roles.session(member)
    inside.execute("BEGIN")
    write(inside)
    close_to(admin, TABLE, [app, member], 5)
    require_no_writes_under_way(admin, TABLE, 1)
    for session in (inside, idle):
        with pytest.raises(psycopg.OperationalError):
            write(session)
    for role in (app, member):
        with roles.session(role) as again, pytest.raises(psycopg.errors.InsufficientPrivilege):
            write(again)
        with roles.session(role) as again:
            assert again.execute("SELECT version FROM memories WHERE id = 'id-00000001'").fetchone() == (2,)


def test_opening_gives_back_exactly_what_was_revoked(roles, admin):
    app, by_column, keeper = roles.make("app"), roles.make("by_column"), roles.make("keeper")
    roles.run(
        f"GRANT INSERT, SELECT ON memories TO {app}; GRANT UPDATE (content), INSERT (id) ON memories TO {by_column}"
    )
    roles.run(f"GRANT DELETE ON memories TO {keeper} WITH GRANT OPTION; GRANT TRUNCATE ON memories TO PUBLIC")

    def access_list():
        table = admin.execute("SELECT relacl::text[] FROM pg_class WHERE oid = 'memories'::regclass").fetchone()[0]
        columns = admin.execute(
            "SELECT attname, attacl::text FROM pg_attribute "
            "WHERE attrelid = 'memories'::regclass AND attacl IS NOT NULL"
        ).fetchall()
        return sorted(table), sorted(columns)

    before, held = access_list(), write_grants(admin, TABLE)
    close_to(admin, TABLE, [app, by_column, keeper], 5)
    assert write_grants(admin, TABLE) == ()
    open_to(admin, TABLE, held)
    open_to(admin, TABLE, held)
    assert access_list() == before
    assert write_grants(admin, TABLE) == held


def test_an_owner_is_shut_out_and_comes_back_as_an_owner(roles, admin):
    owner = roles.make("owner")
    roles.run(f"ALTER TABLE memories OWNER TO {owner}")
    held = write_grants(admin, TABLE)
    close_to(admin, TABLE, [owner], 5)
    with roles.session(owner) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        write(session)
    open_to(admin, TABLE, held)
    with roles.session(owner) as session:
        write(session)


def test_closing_keeps_the_right_of_the_role_that_moves_the_rows(roles):
    mover, app = roles.make("mover"), roles.make("app")
    roles.run(f"ALTER TABLE memories OWNER TO {mover}; GRANT pg_signal_backend TO {mover}")
    with roles.session(mover) as session:
        session.execute(f"GRANT INSERT ON memories TO {app}")
        close_to(session, TABLE, [app], 5)
        write(session)
        assert write_grants(session, TABLE) == ()


def test_a_role_that_is_called_by_an_address_can_shut_others_out(roles):
    """As people and service accounts are called on AlloyDB: no name that stands in SQL without quotes."""
    app, address = roles.make("app"), f"ada{roles.suffix}@example.com"
    roles.run(f'CREATE ROLE "{address}" LOGIN; ALTER TABLE memories OWNER TO "{address}"')
    roles.made.append(f'"{address}"')
    roles.run(f'GRANT UPDATE ON memories TO {app}; GRANT pg_signal_backend TO "{address}"')
    with roles.session(address) as session:
        assert {grant.grantee for grant in write_grants(session, TABLE)} == {app}
        assert failing(session, [app]) == {}
        close_to(session, TABLE, [app], 5)
        write(session)
        open_to(session, TABLE, application_grants(session, TABLE, [app]))
    with roles.session(app) as session:
        write(session)


def test_a_role_that_never_had_a_right_gets_those_of_an_application(roles, admin):
    app = roles.make("app")
    open_to(admin, TABLE, application_grants(admin, TABLE, [app]))
    assert {(grant.grantee, grant.privilege) for grant in write_grants(admin, TABLE)} == {
        (app, right) for right in APPLICATION_RIGHTS if right != "SELECT"
    }
    with roles.session(app) as session:
        write(session)


def test_an_open_transaction_of_a_superuser_is_found_and_named(roles, admin):
    root = roles.make("root", "LOGIN SUPERUSER")
    with roles.session(root) as session:
        session.execute("BEGIN")
        write(session)
        with pytest.raises(DataError, match=rf"{root} \(process {session.info.backend_pid}\) still writes"):
            require_no_writes_under_way(admin, TABLE, 0.05)
        session.execute("COMMIT")
    require_no_writes_under_way(admin, TABLE, 0.05)


def test_closing_a_busy_table_takes_no_longer_than_its_writers_take_to_die(roles, admin):
    app = roles.make("app")
    roles.run(f"GRANT SELECT, UPDATE ON memories TO {app}")
    sessions = [roles.session(app) for _ in range(10)]
    for number, session in enumerate(sessions):
        session.execute("BEGIN")
        if number == 0:
            write(session)
    started = time.monotonic()
    close_to(admin, TABLE, [app], 5)
    assert time.monotonic() - started < 1


def test_who_is_let_in_to_a_table_that_was_made_anew_can_read_it_too(roles, admin):
    app = roles.make("app")
    roles.run(f"GRANT SELECT, UPDATE ON memories TO {app}")
    withheld = write_grants(admin, TABLE)
    close_to(admin, TABLE, [app], 5)
    roles.run("DROP TABLE memories")
    fill(roles.conninfo, 3)
    open_to(admin, TABLE, grants_for(admin, TABLE, [app], withheld))
    with roles.session(app) as session:
        write(session)
