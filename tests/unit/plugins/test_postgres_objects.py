# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _postgres_objects as objects
from hypothesis import given
from hypothesis import strategies as st

# What PostgreSQL 17 stored for this password (SET password_encryption = 'scram-sha-256'; CREATE ROLE x PASSWORD ...).
KNOWN_PASSWORD = "it's a \\ password"
KNOWN_VERIFIER = (
    "SCRAM-SHA-256$4096:OO6Zq+zDDl0F3nb5j+Vo7g==$LR3ST6IYHr6pI5lvHegvhceNMaTlDWt0IwqWE71Au/U=:3/yfGvKGfrLNx4a3AxXYoUfxrqACEJkROh6eFyzoa4Q="
)

any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
awkward_text = st.text("'\"\\\n\r\t$;-:äE ab", max_size=30)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=80)


def read_identifier(sql: str) -> str:
    """Read one quoted identifier by the server's rules; fail on anything after it."""
    assert sql[0] == '"'
    result, position = "", 1
    while True:
        if sql[position] != '"':
            result, position = result + sql[position], position + 1
        elif sql[position : position + 2] == '""':
            result, position = result + '"', position + 2
        else:
            assert position == len(sql) - 1, "the identifier ends early"
            return result


def read_literal(sql: str, standard_conforming: bool) -> str:
    """Read one string constant by the server's rules; fail on anything after it."""
    escapes = sql.startswith("E'") or not standard_conforming
    position = sql.index("'") + 1
    assert position in (1, 2)
    result = ""
    while True:
        if escapes and sql[position] == "\\":
            assert sql[position + 1] == "\\", "an escape that is not a backslash"
            result, position = result + "\\", position + 2
        elif sql[position : position + 2] == "''":
            result, position = result + "'", position + 2
        elif sql[position] == "'":
            assert position == len(sql) - 1, "the literal ends early"
            return result
        else:
            result, position = result + sql[position], position + 1


@given(any_text | awkward_text)
def test_a_quoted_literal_reads_back(text):
    assert read_literal(objects.quote_literal(text), True) == text
    assert read_literal(objects.quote_literal(text), False) == text


@given((any_text | awkward_text).filter(lambda text: 0 < len(text.encode()) <= 63))
def test_a_quoted_identifier_reads_back(text):
    assert read_identifier(objects.quote_identifier(text)) == text


@pytest.mark.parametrize(("name", "message"), [("", "empty"), ("a\0b", "NUL"), ("ä" * 32, "longer than 63 bytes")])
def test_impossible_names_are_refused(name, message):
    with pytest.raises(objects.ObjectsError, match=message):
        objects.quote_identifier(name)


def test_a_literal_with_nul_is_refused():
    with pytest.raises(objects.ObjectsError, match="NUL"):
        objects.quote_literal("a\0b")


def test_a_verifier_made_by_the_server_is_recognized():
    assert objects.password_matches(KNOWN_PASSWORD, KNOWN_VERIFIER)
    assert not objects.password_matches(KNOWN_PASSWORD + " ", KNOWN_VERIFIER)


@given(printable, printable)
def test_only_the_same_password_matches(password, other):
    verifier = objects.scram_verifier(password, iterations=2)
    assert objects.password_matches(password, verifier)
    assert objects.password_matches(other, verifier) == (password == other)


def test_two_verifiers_of_one_password_differ():
    assert objects.scram_verifier("same") != objects.scram_verifier("same")


@pytest.mark.parametrize("stored", [None, "", "md5" + "0" * 32, "SCRAM-SHA-256$4096:x", "SCRAM-SHA-256$4096:AA==$AA==:AA== "])
def test_anything_else_stored_never_matches(stored):
    assert not objects.password_matches("password", stored)


@pytest.mark.parametrize("password", ["", "two\nlines", "tab\t", "pässword", "nul\0", "\x7f"])
def test_passwords_that_clients_treat_differently_are_refused_without_showing_them(password):
    problem = objects.check_password(password)
    assert problem
    assert not password or password not in problem


def test_a_verifier_is_redacted():
    text = objects.redact(f"ERROR: near 'ALTER ROLE x PASSWORD '{objects.scram_verifier('x')}'; more")
    assert text == "ERROR: near 'ALTER ROLE x PASSWORD 'SCRAM-SHA-256$********'; more"


def role(name="app", **values):
    attributes = {"password": None, "login": True, "createdb": False, "connection_limit": -1, "member_of": None, "state": "present"}
    return {"name": name, **attributes, **values}


def database(name="app", owner="app", **values):
    return {"name": name, "owner": owner, "encoding": "UTF8", "locale": "C.UTF-8", "extensions": [], **values}


def found_role(**values):
    attributes = {"login": True, "createdb": False, "connection_limit": -1, "verifier": None, "privileged": False}
    return {**attributes, "member_of": [], "holds": [], **values}


def state(roles=None, databases=None, **values):
    return {
        **objects.empty_state(),
        "extensions": ["ltree", "pg_trgm", "plpgsql"],
        "roles": roles or {},
        "databases": databases or {},
        **values,
    }


OPEN = {"owner": "app", "encoding": "UTF8", "public": True}
CLOSED = {**OPEN, "public": False}
INSIDE = {"extensions": ["plpgsql"], "public_creates": False, "owner_creates": True}


def actions(plan):
    return {(item["kind"], item["name"]): item["action"] for item in plan.items}


def test_nothing_to_do_is_nothing():
    wanted = [role(password="right")]
    found = state({"app": found_role(verifier=objects.scram_verifier("right"))}, {"app": CLOSED})
    plan = objects.make_plan(wanted, [database(extensions=["plpgsql"])], found, {"app": INSIDE})
    assert set(actions(plan).values()) == {"unchanged"}
    assert (plan.roles, plan.databases, plan.inside, plan.drops, plan.before, plan.after) == ([], [], {}, [], {}, {})


def test_everything_is_made_on_a_fresh_server():
    roles = [role("grp", login=False), role(password="p", member_of=["grp"])]
    plan = objects.make_plan(roles, [database(extensions=["ltree"])], state(), {})
    assert actions(plan) == {
        ("role", "grp"): "created",
        ("role", "app"): "created",
        ("database", "app"): "created",
        ("extension", "app: ltree"): "created",
    }
    assert plan.roles[-1] == 'GRANT "grp" TO "app";'
    assert plan.databases[-1] == 'REVOKE ALL ON DATABASE "app" FROM PUBLIC;'
    assert plan.inside == {"app": ['CREATE EXTENSION IF NOT EXISTS "ltree" CASCADE;']}


def test_the_password_itself_is_in_no_statement_and_no_report():
    plan = objects.make_plan([role(password="canary-4711")], [], state(), {})
    assert "SCRAM-SHA-256$" in plan.roles[1]
    assert "canary-4711" not in repr(plan)
    assert "SCRAM-SHA-256$" not in repr((plan.items, plan.before, plan.after))


def test_a_changed_password_is_set_and_nothing_else():
    found = state({"app": found_role(verifier=objects.scram_verifier("old"))})
    plan = objects.make_plan([role(password="new")], [], found, {})
    assert plan.items == [{"kind": "role", "name": "app", "action": "changed", "changes": ["password"]}]
    assert len(plan.roles) == 1


def test_a_superuser_loses_it():
    plan = objects.make_plan([role()], [], state({"app": found_role(privileged=True)}), {})
    assert "NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS" in plan.roles[0]


def test_memberships_are_exact_only_when_given():
    found = state({"app": found_role(member_of=["old"]), "new": found_role(), "old": found_role()})
    plan = objects.make_plan([role(member_of=["new"])], [], found, {})
    assert plan.roles == ['GRANT "new" TO "app";', 'REVOKE "old" FROM "app";']
    assert objects.make_plan([role()], [], found, {}).roles == []


def test_an_open_database_is_closed_and_its_owner_keeps_the_public_schema():
    before_15 = {"extensions": ["plpgsql"], "public_creates": True, "owner_creates": False}
    plan = objects.make_plan([], [database()], state({"app": found_role()}, {"app": OPEN}, version=140000), {"app": before_15})
    assert plan.databases == ['REVOKE ALL ON DATABASE "app" FROM PUBLIC;']
    assert plan.inside == {"app": ["REVOKE CREATE ON SCHEMA public FROM PUBLIC;", 'GRANT USAGE, CREATE ON SCHEMA public TO "app";']}


def test_a_new_database_on_14_is_closed_at_once():
    plan = objects.make_plan([role()], [database()], state(version=140019), {})
    assert len(plan.inside["app"]) == 2
    assert objects.make_plan([role()], [database()], state(version=170000), {}).inside == {}


def test_a_role_is_dropped_after_the_databases_have_changed_hands():
    found = state({"old": found_role(), "app": found_role()}, {"app": {**CLOSED, "owner": "old"}})
    plan = objects.make_plan([role("old", state="absent")], [database()], found, {"app": INSIDE})
    assert plan.databases == ['ALTER DATABASE "app" OWNER TO "app";']
    assert plan.drops == ['DROP ROLE "old";']
    assert objects.make_plan([role("gone", state="absent")], [], found, {}).drops == []


def test_all_conflicts_are_named_at_once_and_before_any_change():
    found = state({"app": found_role()}, {"app": {**CLOSED, "encoding": "SQL_ASCII"}})
    with pytest.raises(objects.ObjectsError) as error:
        objects.make_plan(
            [role(member_of=["nobody"])], [database(extensions=["pg_trmg"]), database("other", owner="ghost")], found, {"app": INSIDE}
        )
    text = str(error.value)
    found["roles"]["old"] = found_role(holds=["records"])
    with pytest.raises(objects.ObjectsError, match="role old cannot be dropped, as it owns or may use something in records"):
        objects.make_plan([role("old", state="absent")], [], found, {})
    for part in ("member of nobody", "encoding SQL_ASCII", "no extension pg_trmg", "owned by ghost"):
        assert part in text


def test_a_standby_takes_no_changes_but_may_be_looked_at():
    found = state({"app": found_role()}, read_only=True)
    assert objects.make_plan([role()], [], found, {}).items[0]["action"] == "unchanged"
    with pytest.raises(objects.ObjectsError, match="name the primary"):
        objects.make_plan([role("more")], [], found, {})


def test_what_cannot_be_asked_for_is_named_at_once():
    problems = objects.check_wanted(
        [role("postgres"), role("pg_x"), role("a", password="two\nlines"), role("b"), role("b"), role("gone", state="absent")],
        [database("template1"), database("x", owner="gone"), database("n\0ul")],
    )
    for part in (
        "role postgres belongs",
        "role pg_x belongs",
        "password of role a holds",
        "role b is listed 2 times",
        "database template1 belongs",
        "owned by role gone",
        "NUL",
    ):
        assert any(part in problem for problem in problems), part
    assert "two" not in " ".join(problems)


@given(name=awkward_text.filter(bool), owner=awkward_text.filter(bool))
def test_names_never_leave_their_quotes(name, owner):
    if len(name.encode()) > 63 or len(owner.encode()) > 63 or name == owner:
        return
    plan = objects.make_plan([role(owner)], [database(name, owner=owner)], state(), {})
    assert plan.roles[0].startswith(f"CREATE ROLE {objects.quote_identifier(owner)} LOGIN")
    quoted = objects.quote_identifier(owner)
    assert plan.databases[0].startswith(f"CREATE DATABASE {objects.quote_identifier(name)} OWNER {quoted} TEMPLATE")
