#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_cluster
short_description: A PostgreSQL cluster with data checksums, by the distribution's tools
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Creates a cluster of C(postgresql-common) when it does not exist, with data checksums, UTF-8 and a locale that sorts by code point.
  - Turns data checksums on in a cluster that has never been started, such as the one that the distribution's packages create. It takes a
    moment then. Nothing in a cluster that has run is changed.
  - It does not start the server.
attributes:
  check_mode:
    description: Reports whether a cluster would be created or changed. Without the packages, that is a change.
    support: full
  diff_mode:
    description: Shows whether the cluster exists and has checksums, before and after.
    support: full
options:
  version:
    description: Major version of PostgreSQL, such as V("17").
    type: str
    required: true
  name:
    description: Name of the cluster.
    type: str
    default: main
  locale:
    description: Sort order and character classes of a cluster that is created.
    type: str
    default: C.UTF-8
notes:
  - Checksums of a cluster that has run are turned on by hand, as its server must be down meanwhile, with C(pg_checksums --enable).
"""

EXAMPLES = r"""
- name: The distribution's cluster
  civitas.hosting.postgres_cluster:
    version: "17"
"""

RETURN = r"""
data_directory:
  description: Where the cluster's data is.
  returned: always
  type: str
  sample: /var/lib/postgresql/17/main
action:
  description: C(created), C(checksums) or C(unchanged).
  returned: always
  type: str
"""

import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule


def data_directory(version: str, name: str) -> t.Optional[str]:
    """The data directory that the cluster's configuration names; None when there is no such cluster."""
    try:
        with open(f"/etc/postgresql/{version}/{name}/postgresql.conf", encoding="utf-8") as lines:
            for line in lines:
                match = re.match(r"\s*data_directory\s*=?\s*'([^']+)'", line)
                if match:
                    return match[1]
    except FileNotFoundError:
        return None
    return f"/var/lib/postgresql/{version}/{name}"


def lacks_checksums(module: AnsibleModule, binaries: str, directory: str) -> bool:
    _rc, out, _err = module.run_command([f"{binaries}/pg_controldata", directory], check_rc=True, environ_update={"LC_ALL": "C"})
    return bool(re.search(r"^Data page checksum version:\s+0$", out, re.MULTILINE))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "name": {"type": "str", "default": "main"},
            "locale": {"type": "str", "default": "C.UTF-8"},
        },
        supports_check_mode=True,
    )
    version, name = module.params["version"], module.params["name"]
    binaries = f"/usr/lib/postgresql/{version}/bin"
    if not os.path.exists(f"{binaries}/initdb") and not module.check_mode:
        module.fail_json(msg=f"PostgreSQL {version} is not installed; install the package postgresql-{version} first")
    found = data_directory(version, name)
    directory = found or f"/var/lib/postgresql/{version}/{name}"
    action = "unchanged"
    if found is None:
        action = "created"
        if not module.check_mode:
            module.run_command(
                ["pg_createcluster", "--locale", module.params["locale"], "--encoding", "UTF8", version, name, "--", "--data-checksums"],
                check_rc=True,
            )
    elif not os.path.exists(os.path.join(directory, "PG_VERSION")):
        module.fail_json(
            msg=f"the cluster {version}/{name} is configured, but {directory} holds no data; mount its volume, "
            f"or remove /etc/postgresql/{version}/{name} for a new, empty cluster"
        )
    # Every start writes this file, and nothing removes it: without it, nobody has ever used the cluster.
    elif not os.path.exists(os.path.join(directory, "postmaster.opts")) and lacks_checksums(module, binaries, directory):
        action = "checksums"
        if not module.check_mode:
            command = ["runuser", "-u", "postgres", "--", f"{binaries}/pg_checksums", "--enable", "-D", directory]
            module.run_command(command, check_rc=True, cwd="/")
    after = {"exists": True, "checksums": True}
    before = {"exists": action != "created", "checksums": False} if action != "unchanged" else after
    module.exit_json(changed=action != "unchanged", action=action, data_directory=directory, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
