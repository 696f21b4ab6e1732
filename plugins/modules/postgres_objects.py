#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_objects
short_description: Roles, databases and extensions of a PostgreSQL server in one call
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Reads the state of the server and of the listed databases, applies only the difference, and reports per object.
  - Passwords never reach the server, its log or a command line. The module sends SCRAM-SHA-256 verifiers, on the standard input of C(psql),
    and tells from the stored verifier whether a password has changed.
  - A listed database is closed to everybody but its owner, who may create objects in its schema C(public).
  - Nothing is ever dropped but roles with O(roles[].state=absent), and those only when they own nothing.
attributes:
  check_mode:
    description: Reports what would change. On a host where the server is not installed or does not run yet, that is everything.
    support: full
  diff_mode:
    description: Shows what changes of each object. Passwords are shown as C((set)).
    support: full
options:
  data_directory:
    description:
      - The data directory of the server, such as C(/var/lib/postgresql/17/main). Port and socket of the running server are read there.
    type: path
    required: true
  roles:
    description: The roles. Other roles of the server are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the role.
        type: str
        required: true
      password:
        description: Its password, of printable ASCII characters. Without it the password is left alone.
        type: str
      login:
        description: Whether the role may connect.
        type: bool
        default: true
      createdb:
        description: Whether the role may create databases.
        type: bool
        default: false
      connection_limit:
        description: How many connections the role may have at once; V(-1) for no limit.
        type: int
        default: -1
      member_of:
        description: The roles whose member this one is, no others. Without it the memberships are left alone.
        type: list
        elements: str
      state:
        description: Whether the role exists. A role that owns something cannot be dropped.
        type: str
        choices: [present, absent]
        default: present
  databases:
    description: The databases. Other databases of the server are left alone.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the database.
        type: str
        required: true
      owner:
        description: The role that owns it, one of O(roles) or of the server.
        type: str
        required: true
      encoding:
        description: Encoding of the texts. That of an existing database cannot be changed; another one is an error.
        type: str
        default: UTF8
      locale:
        description:
          - Sort order and character classes of a database that is created. That of an existing one is left alone.
          - The default sorts by code point, so no upgrade of the system can make an index wrong.
        type: str
        default: C.UTF-8
      extensions:
        description: Extensions that the database has, with those that they need. Others are left alone.
        type: list
        elements: str
        default: []
notes:
  - Run it as root on the server; it talks to the server as the system user C(postgres) through the socket.
  - Roles are never superusers and may not create roles, replicate or bypass row security; an existing listed role loses these.
  - Fails when the server rejects lines of its C(pg_hba.conf), as it then keeps its former rules.
"""

EXAMPLES = r"""
- name: The database of the application
  civitas.hosting.postgres_objects:
    data_directory: /var/lib/postgresql/17/main
    roles:
      - {name: records, password: "{{ lookup('civitas.hosting.secret', 'records_database') }}", connection_limit: 40}
    databases:
      - {name: records, owner: records, extensions: [pg_trgm, ltree]}
"""

RETURN = r"""
objects:
  description: One result per listed object, in the order of doing.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: C(role), C(database), C(privilege) or C(extension).
      type: str
    name:
      description: Name of the object; with its database in front where it lies in one.
      type: str
    action:
      description: C(created), C(changed), C(dropped) or C(unchanged).
      type: str
    changes:
      description: What of it changed.
      type: list
      elements: str
  sample:
    - {kind: role, name: records, action: created, changes: [connection_limit, createdb, login, password]}
    - {kind: database, name: records, action: unchanged, changes: []}
pending_restart:
  description: Settings that wait for a restart of the server.
  returned: always
  type: list
  elements: str
  sample: [shared_buffers]
"""

import json
import os
import re
import subprocess
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _postgres_objects as objects

ROLE = {
    "name": {"type": "str", "required": True},
    "password": {"type": "str", "no_log": True},
    "login": {"type": "bool", "default": True},
    "createdb": {"type": "bool", "default": False},
    "connection_limit": {"type": "int", "default": -1},
    "member_of": {"type": "list", "elements": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
DATABASE = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "encoding": {"type": "str", "default": "UTF8"},
    "locale": {"type": "str", "default": "C.UTF-8"},
    "extensions": {"type": "list", "elements": "str", "default": []},
}
READY_SECONDS = 60
STATEMENT_SECONDS = 300


class NotRunning(Exception):
    """The server is not installed or does not run; the text says which and what to look at."""


class Server:
    """The running server of a data directory."""

    def __init__(self, data_directory: str) -> None:
        version = _read(os.path.join(data_directory, "PG_VERSION"))
        if version is None:
            raise NotRunning(f"there is no PostgreSQL in {data_directory}; create the cluster first, or correct data_directory")
        self.socket_directory, self.port = self._wait_until_ready(data_directory)
        # The wrapper in the search path costs more time than the query.
        own = f"/usr/lib/postgresql/{version[0]}/bin/psql"
        self.psql = own if os.path.exists(own) else "psql"

    @staticmethod
    def _wait_until_ready(data_directory: str) -> t.Tuple[str, str]:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            lines = _read(os.path.join(data_directory, "postmaster.pid")) or []
            running = bool(lines) and os.path.exists(f"/proc/{lines[0]}")
            if running and len(lines) > 7 and lines[7] in ("ready", "standby"):
                return lines[4], lines[3]
            if not running or time.monotonic() > deadline:
                problem = "did not get ready" if running else "does not run"
                raise NotRunning(
                    f"the PostgreSQL server of {data_directory} {problem}; "
                    "see why with: journalctl -u 'postgresql@*' ; tail /var/log/postgresql/*.log"
                )
            time.sleep(0.2)

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run a script and return what it prints.

        Raises:
            ObjectsError: the server's message.
        """
        # The name is in the environment, as psql would take one with a = in an argument for connection parameters.
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LC_ALL": "C.UTF-8",
            "PGCLIENTENCODING": "UTF8",
            "PGHOST": self.socket_directory,
            "PGPORT": self.port,
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "15",
        }
        command = ["runuser", "-u", "postgres", "--", self.psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        try:
            done = subprocess.run(
                command,
                input=(objects.session() + sql).encode("utf-8", "surrogatepass"),
                capture_output=True,
                timeout=STATEMENT_SECONDS,
                env=environment,
                cwd="/",
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise objects.ObjectsError(f"PostgreSQL gave no answer within {STATEMENT_SECONDS} s; see pg_stat_activity for locks") from None
        if done.returncode != 0:
            raise objects.ObjectsError(f"PostgreSQL says, in database {database}: {_message(done.stderr.decode('utf-8', 'replace'))}")
        return done.stdout.decode("utf-8")

    def ask(self, query: str, database: str = "postgres") -> objects.State:
        return t.cast(objects.State, json.loads(self.run(query, database)))


def _read(path: str) -> t.Optional[t.List[str]]:
    try:
        with open(path, encoding="utf-8") as lines:
            return [line.strip() for line in lines]
    except FileNotFoundError:
        return None


def _message(stderr: str) -> str:
    """Keep what the server says; the lines with the statement could show what it holds."""
    kept = re.findall(r"(?:ERROR|FATAL|DETAIL|HINT|psql: error): .*", stderr)
    return objects.redact("; ".join(" ".join(line.split()) for line in kept) or stderr.strip()[-500:])


def apply(server: Server, plan: objects.Plan) -> None:
    """Carry the plan out in its order. What is inside one transaction happens wholly or not at all."""
    if plan.roles:
        server.run(objects.transaction(plan.roles))
    if plan.databases:
        server.run("\n".join(plan.databases))
    for name, statements in plan.inside.items():
        server.run(objects.transaction(statements), name)
    if plan.drops:
        server.run(objects.transaction(plan.drops))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_directory": {"type": "path", "required": True},
            "roles": {"type": "list", "elements": "dict", "default": [], "options": ROLE},
            "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
        },
        supports_check_mode=True,
    )
    roles, databases = module.params["roles"], module.params["databases"]
    problems = objects.check_wanted(roles, databases)
    if problems:
        module.fail_json(msg="\n".join(problems))
    if os.geteuid() != 0:
        module.fail_json(msg="this module becomes the system user postgres and needs root for it; add become: true to the task")
    server = None
    try:
        server = Server(module.params["data_directory"])
    except NotRunning as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
    try:
        state = server.ask(objects.server_query(roles, databases)) if server else objects.empty_state()
        if state["rejected"]:
            module.fail_json(msg="PostgreSQL rejects and ignores its new access rules, correct them:\n" + "\n".join(state["rejected"]))
        inside = {
            database["name"]: server.ask(objects.database_query(database["owner"]), database["name"])
            for database in databases
            if server and database["name"] in state["databases"]
        }
        plan = objects.make_plan(roles, databases, state, inside)
        if server and not module.check_mode:
            apply(server, plan)
    except objects.ObjectsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=any(item["action"] != "unchanged" for item in plan.items),
        objects=plan.items,
        pending_restart=state["pending_restart"],
        diff={"before": plan.before, "after": plan.after},
    )


if __name__ == "__main__":
    main()
