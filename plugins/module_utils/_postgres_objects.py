# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles, databases and extensions of a PostgreSQL server: the state, the difference, and the SQL that removes it.

Private to the collection: no promise of stability. Nothing here runs a command; the module does. SQL with secrets in it goes to psql on its
standard input, and holds SCRAM verifiers only, never a password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import typing as t

# Up to 14 everybody may create objects in the schema public of a new database.
CLOSED_PUBLIC_SCHEMA = 150000
SCRAM_ITERATIONS = 4096
BUILT_IN_DATABASES = ("postgres", "template0", "template1")

_VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")

State = t.Dict[str, t.Any]
Item = t.Dict[str, t.Any]


class ObjectsError(Exception):
    """Something that is asked for cannot be; one line per problem, each with what to write."""


class Plan(t.NamedTuple):
    """What to do, in the order of doing it.

    items: one report per object, unchanged ones included.
    roles: statements for one transaction.
    databases: statements that cannot be in a transaction.
    inside: statements per database, each a transaction in that database.
    drops: statements for one transaction at the end.
    before, after: what changes, for the diff.
    """

    items: t.List[Item]
    roles: t.List[str]
    databases: t.List[str]
    inside: t.Dict[str, t.List[str]]
    drops: t.List[str]
    before: t.Dict[str, t.Any]
    after: t.Dict[str, t.Any]


# Quoting


def quote_identifier(name: str) -> str:
    """Return C(name) as an SQL identifier.

    Raises:
        ObjectsError: empty, longer than the server's 63 bytes (it would cut it silently), or with a NUL.
    """
    if not name:
        raise ObjectsError("a name is empty")
    if "\0" in name:
        raise ObjectsError(f"the name {name!r} holds a NUL byte, which PostgreSQL cannot store")
    if len(name.encode("utf-8", "surrogatepass")) > 63:
        raise ObjectsError(f"the name {name!r} is longer than 63 bytes, the most that PostgreSQL keeps")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Return C(text) as an SQL string, whatever standard_conforming_strings says.

    Raises:
        ObjectsError: C(text) holds a NUL.
    """
    if "\0" in text:
        raise ObjectsError("a text holds a NUL byte, which PostgreSQL cannot store")
    if "\\" in text:
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"


# Passwords


def check_password(password: str) -> t.Optional[str]:
    """Return what is wrong with C(password), without showing it, or V(None)."""
    if not password:
        return "is empty"
    if any(not " " <= character <= "~" for character in password):
        # Beyond ASCII the verifier depends on a normalization (SASLprep) that clients do differently.
        return "holds a character that is not printable ASCII (a line break, perhaps); write one of letters, digits and ASCII punctuation"
    return None


def scram_verifier(password: str, salt: t.Optional[bytes] = None, iterations: int = SCRAM_ITERATIONS) -> str:
    """Return what PostgreSQL stores for C(password), so that the server never sees the password itself (RFC 5803)."""
    salt = os.urandom(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server_key = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    stored_key = hashlib.sha256(client_key).digest()
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def password_matches(password: str, verifier: t.Optional[str]) -> bool:
    """Whether C(verifier) was made from C(password). An md5 hash never matches, so that it is replaced."""
    match = _VERIFIER.fullmatch(verifier or "")
    if not match:
        return False
    expected = scram_verifier(password, base64.b64decode(match[2]), int(match[1]))
    return hmac.compare_digest(expected, match[0])


def redact(text: str) -> str:
    """Return C(text) without SCRAM verifiers."""
    return re.sub(r"SCRAM-SHA-256\$[^'\s]*", "SCRAM-SHA-256$********", text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# Wanted


def check_wanted(roles: t.Sequence[Item], databases: t.Sequence[Item]) -> t.List[str]:
    """Return everything that is wrong with what is asked for, as far as it can be told without a server."""
    problems: t.List[str] = []
    for kind, items in (("role", roles), ("database", databases)):
        names = [item["name"] for item in items]
        for name in names:
            try:
                quote_identifier(name)
            except ObjectsError as error:
                problems.append(f"{kind}: {error}")
        repeated = {name: names.count(name) for name in names if names.count(name) > 1}
        problems += [f"{kind} {name} is listed {count} times; list it once" for name, count in repeated.items()]
    for role in roles:
        if role["name"] == "postgres" or role["name"].startswith("pg_"):
            problems.append(f"role {role['name']} belongs to PostgreSQL itself; choose another name")
        wrong = None if role.get("password") is None else check_password(role["password"])
        if wrong:
            problems.append(f"the password of role {role['name']} {wrong}")
    absent = {role["name"] for role in roles if role.get("state") == "absent"}
    for database in databases:
        if database["name"] in BUILT_IN_DATABASES:
            problems.append(f"database {database['name']} belongs to PostgreSQL itself; choose another name")
        if database["owner"] in absent:
            problems.append(f"database {database['name']} is owned by role {database['owner']}, which is to be absent; name another owner")
    return problems


# State


def server_query(roles: t.Sequence[Item], databases: t.Sequence[Item]) -> str:
    """Return the query whose only value is the server's state as JSON (see C(empty_state) for its shape)."""
    groups = [group for role in roles for group in role.get("member_of") or []]
    role_names = _text_array([role["name"] for role in roles] + groups + [database["owner"] for database in databases])
    database_names = _text_array([database["name"] for database in databases])
    return f"""
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'read_only', pg_is_in_recovery(),
  'pending_restart', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'rejected', (SELECT coalesce(json_agg(format('%s line %s: %s', current_setting('hba_file'), line_number, error)), '[]')
    FROM pg_hba_file_rules WHERE error IS NOT NULL),
  'extensions', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_available_extensions),
  'roles', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
      'login', r.rolcanlogin, 'createdb', r.rolcreatedb, 'connection_limit', r.rolconnlimit, 'verifier', r.rolpassword,
      'privileged', r.rolsuper OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls,
      'member_of', (SELECT coalesce(json_agg(DISTINCT g.rolname), '[]') FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
        WHERE m.member = r.oid),
      'holds', (SELECT coalesce(json_agg(DISTINCT coalesce(s.datname, l.datname, 'the server')), '[]') FROM pg_shdepend p
        LEFT JOIN pg_database s ON p.classid = 'pg_database'::regclass AND p.objid = s.oid
        LEFT JOIN pg_database l ON p.dbid = l.oid
        WHERE p.refclassid = 'pg_authid'::regclass AND p.refobjid = r.oid
          AND NOT coalesce(p.deptype = 'o' AND s.datname = ANY ({database_names}), false))
    )), '{{}}')
    FROM pg_authid r WHERE r.rolname = ANY ({role_names})),
  'databases', (SELECT coalesce(json_object_agg(d.datname, json_build_object(
      'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
      'public', EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee = 0))), '{{}}')
    FROM pg_database d WHERE d.datname = ANY ({database_names}))
);
"""


def database_query(owner: str) -> str:
    """Return the query for what lies inside the database that it is run in: one JSON value (see C(new_database))."""
    return f"""
SELECT json_build_object(
  'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension),
  'public_creates', EXISTS (SELECT FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'),
  'owner_creates', NOT EXISTS (SELECT FROM pg_namespace n, pg_roles r WHERE n.nspname = 'public' AND r.rolname = {quote_literal(owner)}
    AND NOT (has_schema_privilege(r.oid, n.oid, 'CREATE') AND has_schema_privilege(r.oid, n.oid, 'USAGE')))
);
"""


def empty_state() -> State:
    """Return the state of a server that does not exist yet: what C(server_query) answers on a fresh one."""
    return {
        "version": CLOSED_PUBLIC_SCHEMA,
        "read_only": False,
        "pending_restart": [],
        "rejected": [],
        "extensions": None,  # unknown: nothing can be told about what the packages will bring
        "roles": {},
        "databases": {},
    }


def new_database(version: int) -> State:
    """Return what C(database_query) answers in a database just made from template0."""
    return {"extensions": ["plpgsql"], "public_creates": version < CLOSED_PUBLIC_SCHEMA, "owner_creates": version >= CLOSED_PUBLIC_SCHEMA}


def _text_array(names: t.Iterable[str]) -> str:
    return "ARRAY[" + ", ".join(quote_literal(name) for name in sorted(set(names))) + "]::name[]"


# Difference


def make_plan(roles: t.Sequence[Item], databases: t.Sequence[Item], state: State, inside: t.Dict[str, State]) -> Plan:
    """Compare what is wanted with what is.

    Args:
        roles: C(name), C(password) (or None), C(login), C(createdb), C(connection_limit), C(member_of) (or None), C(state).
        databases: C(name), C(owner), C(encoding), C(locale), C(extensions).
        state: the answer of C(server_query).
        inside: the answers of C(database_query) by name of the database.

    Raises:
        ObjectsError: what cannot be done, all problems at once and before anything is changed.
    """
    problems = _conflicts(roles, databases, state)
    if problems:
        raise ObjectsError("\n".join(problems))
    plan = Plan(items=[], roles=[], databases=[], inside={}, drops=[], before={}, after={})
    # Groups may be among the roles, so memberships come after all roles exist.
    memberships: t.List[str] = []
    for role in roles:
        _plan_role(role, state["roles"].get(role["name"]), plan, memberships)
    plan.roles.extend(memberships)
    for database in databases:
        found = state["databases"].get(database["name"])
        _plan_database(database, found, plan)
        _plan_inside(database, inside[database["name"]] if found else new_database(state["version"]), plan)
    if state["read_only"] and any(item["action"] != "unchanged" for item in plan.items):
        raise ObjectsError("the server is a standby and takes no changes; name the primary")
    return plan


def _conflicts(roles: t.Sequence[Item], databases: t.Sequence[Item], state: State) -> t.List[str]:
    problems = []
    present = {role["name"] for role in roles if role["state"] == "present"}
    absent = {role["name"] for role in roles} - present
    known = (set(state["roles"]) | present) - absent
    for role in roles:
        # Listed databases are left out there: they have another owner once this is done.
        holds = state["roles"][role["name"]]["holds"] if role["name"] in absent and role["name"] in state["roles"] else []
        if holds:
            quoted = quote_identifier(role["name"])
            problems.append(
                f"role {role['name']} cannot be dropped, as it owns or may use something in {', '.join(sorted(holds))}; "
                f"give it to another role first, in each with REASSIGN OWNED BY {quoted} TO another; DROP OWNED BY {quoted};"
            )
        for group in role.get("member_of") or []:
            # PostgreSQL's own groups are always there, and not asked for on a server that does not exist yet.
            if group not in known and not group.startswith("pg_"):
                problems.append(f"role {role['name']} is to be a member of {group}, which does not exist; add it to the roles")
    for database in databases:
        if database["owner"] not in known:
            problems.append(f"database {database['name']} is to be owned by {database['owner']}, which does not exist; add it to the roles")
        found = state["databases"].get(database["name"])
        if found and found["encoding"] != database["encoding"]:
            problems.append(
                f"database {database['name']} has the encoding {found['encoding']} and not {database['encoding']}, and it cannot be "
                f"changed in place; write encoding: {found['encoding']}, or dump the database and load it into a new one"
            )
        if state["extensions"] is not None:
            for extension in sorted(set(database["extensions"]) - set(state["extensions"])):
                problems.append(
                    f"database {database['name']}: there is no extension {extension} on this server; "
                    "correct its name or install the package that brings it"
                )
    return problems


def _plan_role(role: Item, found: t.Optional[State], plan: Plan, memberships: t.List[str]) -> None:
    name = role["name"]
    quoted = quote_identifier(name)
    if role["state"] == "absent":
        if found:
            plan.drops.append(f"DROP ROLE {quoted};")
        _report(plan, "role", name, "dropped" if found else "unchanged", {"state": ("present", "absent")} if found else {})
        return
    wanted = {"login": role["login"], "createdb": role["createdb"], "connection_limit": role["connection_limit"]}
    changes: t.Dict[str, t.Tuple[t.Any, t.Any]] = {
        key: ((found or {}).get(key), value) for key, value in wanted.items() if found is None or found[key] != value
    }
    if found and found["privileged"]:
        # A role kept by this module is never a way around the privileges of the databases.
        changes["privileged"] = (True, False)
    options = [
        "LOGIN" if role["login"] else "NOLOGIN",
        "CREATEDB" if role["createdb"] else "NOCREATEDB",
        f"CONNECTION LIMIT {int(role['connection_limit'])}",
        "NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS",
    ]
    statements = []
    if changes:
        statements.append(f"{'ALTER' if found else 'CREATE'} ROLE {quoted} {' '.join(options)};")
    if role.get("password") is not None and not password_matches(role["password"], (found or {}).get("verifier")):
        changes["password"] = ("(another)" if found and found["verifier"] else None, "(set)")
        statements.append(f"ALTER ROLE {quoted} PASSWORD {quote_literal(scram_verifier(role['password']))};")
    if role.get("member_of") is not None:
        has = sorted(found["member_of"]) if found else []
        wants = sorted(set(role["member_of"]))
        if has != wants:
            changes["member_of"] = (has if found else None, wants)
            memberships.extend(f"GRANT {quote_identifier(group)} TO {quoted};" for group in wants if group not in has)
            memberships.extend(f"REVOKE {quote_identifier(group)} FROM {quoted};" for group in has if group not in wants)
    plan.roles.extend(statements)
    _report(plan, "role", name, ("changed" if changes else "unchanged") if found else "created", changes)


def _plan_database(database: Item, found: t.Optional[State], plan: Plan) -> None:
    name, owner = database["name"], database["owner"]
    quoted = quote_identifier(name)
    changes: t.Dict[str, t.Tuple[t.Any, t.Any]] = {}
    if found is None:
        changes = {"owner": (None, owner), "encoding": (None, database["encoding"]), "locale": (None, database["locale"])}
        # From template0, as only it may get another encoding and locale than the server's.
        plan.databases.append(
            f"CREATE DATABASE {quoted} OWNER {quote_identifier(owner)} TEMPLATE template0 ENCODING {quote_literal(database['encoding'])} "
            f"LC_COLLATE {quote_literal(database['locale'])} LC_CTYPE {quote_literal(database['locale'])};"
        )
    elif found["owner"] != owner:
        changes["owner"] = (found["owner"], owner)
        plan.databases.append(f"ALTER DATABASE {quoted} OWNER TO {quote_identifier(owner)};")
    if found is None or found["public"]:
        changes["public_may_connect"] = (True if found else None, False)
        plan.databases.append(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC;")
    _report(plan, "database", name, ("changed" if changes else "unchanged") if found else "created", changes)


def _plan_inside(database: Item, found: State, plan: Plan) -> None:
    name = database["name"]
    statements = []
    if found["public_creates"]:
        statements.append("REVOKE CREATE ON SCHEMA public FROM PUBLIC;")
        _report(plan, "privilege", f"{name}: schema public", "changed", {"public_may_create": (True, False)})
    if not found["owner_creates"]:
        statements.append(f"GRANT USAGE, CREATE ON SCHEMA public TO {quote_identifier(database['owner'])};")
        _report(plan, "privilege", f"{name}: schema public", "changed", {"owner_may_create": (False, True)})
    for extension in database["extensions"]:
        missing = extension not in found["extensions"]
        if missing:
            statements.append(f"CREATE EXTENSION IF NOT EXISTS {quote_identifier(extension)} CASCADE;")
        changes: t.Dict[str, t.Tuple[t.Any, t.Any]] = {"state": ("absent", "present")} if missing else {}
        _report(plan, "extension", f"{name}: {extension}", "created" if missing else "unchanged", changes)
    if statements:
        plan.inside[name] = statements


def _report(plan: Plan, kind: str, name: str, action: str, changes: t.Dict[str, t.Tuple[t.Any, t.Any]]) -> None:
    plan.items.append({"kind": kind, "name": name, "action": action, "changes": sorted(changes)})
    if changes:
        key = f"{kind} {name}"
        if action != "created":
            plan.before.setdefault(key, {}).update({what: old for what, (old, _new) in changes.items()})
        plan.after.setdefault(key, {}).update({what: new for what, (_old, new) in changes.items()})


# Scripts


def session() -> str:
    """Return what begins each session.

    No statement of ours reaches the server's log, however it is set; and nothing that the owner of a database has put into one of its
    schemas is called with our privileges.
    """
    return (
        "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic';\n"
        "SET lc_messages = 'C'; SET standard_conforming_strings = on; SET search_path = pg_catalog;\n"
    )


def transaction(statements: t.Sequence[str]) -> str:
    """Return C(statements) as one transaction. Extensions without a schema of their own go to the schema public."""
    return "BEGIN;\nSET LOCAL search_path = public;\n" + "\n".join(statements) + "\nCOMMIT;\n"
