#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: support_bundle
short_description: Collects logs and state of a host, without secrets, for somebody who helps
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Collects the end of logs, the state of services, network, disks, packages, database and containers, and the files that the roles lay
    down, into one C(HOST.tar.gz) on the controller. Changes nothing on the host.
  - Secrets are taken out twice. On the host, before anything is written, those that the host knows (files for few, settings of services
    and containers, what processes were started with), in the encodings in which programs print them, and what looks like a secret. On
    the controller those of the secrets file, of the vault and of the connection. When one of these would still be in it, nothing of that
    host is written.
  - PostgreSQL's log keeps what the server says of itself, and no values, statements and details; the error log of nginx keeps no paths.
    The access log, files with secrets, and arguments and environments of processes are never collected.
  - Secrets of 1 to 3 characters are not looked for as they are, as that would take letters out of every word, but after the names of
    secrets such as C(password=); what is told of the bundle names them. Those of 4 and 5 characters are looked for as whole words.
options:
  state:
    description:
      - V(begun) judges the options and makes the directory of the bundle on the controller, which needs no host.
      - V(collected) adds a host.
      - V(finished) writes C(README.txt) with what is inside, what was cut, and what is missing.
    type: str
    required: true
    choices: [begun, collected, finished]
  directory:
    description:
      - The directory on the controller for bundles, for O(state=begun). It must be no part of a git work tree, unless it is ignored, is
        empty or is made now, and then it gets a C(.gitignore).
    type: str
  site:
    description: What the site is called in names of files.
    type: str
    default: site
  bundle:
    description: The directory of this bundle, RV(bundle) of O(state=begun).
    type: str
  hours:
    description: How far logs go back, 1 to 720.
    type: int
    default: 24
  log_megabytes:
    description: How much is taken of each log, its end, 1 to 50 MiB.
    type: int
    default: 10
  application_logs:
    description: Whether what containers log is collected. Applications may log people's records, which no program can tell from other text.
    type: bool
    default: false
  mask_addresses:
    description: Whether public addresses are replaced, each by the same name within a bundle. Private addresses stay.
    type: bool
    default: true
  secrets_file:
    description: The secrets file of the site; C(civitas_secrets_file) or C(secrets.yml) beside the inventory unless given.
    type: str
  hosts:
    description: For O(state=finished), a mapping of each host to what O(state=collected) returned, with RV(told) or C(msg).
    type: dict
    default: {}
  path:
    description: Where the host writes. Filled in by the action plugin of the same name; not for playbooks.
    type: path
  owner:
    description: Number of the account that fetches it. Filled in by the action plugin of the same name; not for playbooks.
    type: int
attributes:
  check_mode:
    description: Says what would be collected; makes and writes nothing.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
notes:
  - On the host it must run as root. There it writes to C(/run), which is in memory, and what it wrote is removed in every case.
"""

EXAMPLES = r"""
- name: Begin
  civitas.hosting.support_bundle:
    state: begun
    directory: "{{ inventory_dir }}/support"
    site: records.example.org
  run_once: true
  register: begun

- name: Collect
  civitas.hosting.support_bundle:
    state: collected
    bundle: "{{ begun.bundle }}"
    hours: 48
  become: true
  register: collected

- name: Finish
  civitas.hosting.support_bundle:
    state: finished
    bundle: "{{ begun.bundle }}"
    hosts: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'collected'))) }}"
  run_once: true
"""

RETURN = r"""
bundle:
  description: The directory of this bundle; with O(state=begun).
  type: str
  returned: success
parts:
  description: What would be collected; with O(state=collected) in check mode.
  type: list
  elements: str
  returned: check mode
told:
  description: What became of the host; with O(state=collected).
  type: dict
  returned: success
  contains:
    files:
      description: The files, each with V(name), V(bytes) and V(note).
      type: list
      elements: dict
    missing:
      description: What could not be collected, each with V(name) and V(reason).
      type: list
      elements: dict
    redacted:
      description: How often each kind was taken out.
      type: dict
    too_short:
      description: Where secrets are that are too short to be looked for.
      type: list
      elements: str
    size:
      description: Bytes of the file.
      type: int
missing_hosts:
  description: Hosts of which nothing is there; with O(state=finished).
  type: list
  elements: str
  returned: success
size:
  description: The size of all files in words; with O(state=finished).
  type: str
  returned: success
"""

import contextlib
import os
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._support_bundle import Wanted, collect, plan

ARGUMENT_SPEC = {
    "state": {"type": "str", "required": True, "choices": ["begun", "collected", "finished"]},
    "directory": {"type": "str"},
    "site": {"type": "str", "default": "site"},
    "bundle": {"type": "str"},
    "hours": {"type": "int", "default": 24},
    "log_megabytes": {"type": "int", "default": 10},
    "application_logs": {"type": "bool", "default": False},
    "mask_addresses": {"type": "bool", "default": True},
    # A path.
    "secrets_file": {"type": "str", "no_log": False},
    "hosts": {"type": "dict", "default": {}},
    "path": {"type": "path"},
    "owner": {"type": "int"},
}
# Seconds after which the host removes what was not fetched because the controller is gone.
FORGOTTEN = 3600


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    wanted = Wanted(params["hours"], params["log_megabytes"] << 20, params["application_logs"])
    if os.geteuid() != 0:
        module.fail_json(msg="support_bundle reads logs that only root may read. Write become: true.")
    if module.check_mode:
        module.exit_json(changed=False, parts=plan(wanted))
    if not params["path"] or params["owner"] is None:
        module.fail_json(msg="support_bundle works by its action plugin only; run it in a playbook, by its full name.")
    directory = os.path.dirname(params["path"])
    try:
        os.mkdir(directory, 0o700)
        forget(directory)
        os.umask(0o077)
        collect(params["path"], wanted)
        os.chown(params["path"], params["owner"], -1)
        os.chown(directory, params["owner"], -1)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        module.fail_json(
            msg=f"{params['path']} cannot be written: {error.strerror}. Make room in /run, or take less: support_bundle_hours."
        )
    module.exit_json(changed=False)


def forget(directory: str) -> None:
    """See that the directory is removed also when nobody comes back for it."""
    unit = f"--unit={os.path.basename(directory)}"
    command = ["systemd-run", "--quiet", "--collect", unit, f"--on-active={FORGOTTEN}", "--", "rm", "-rf", "--", directory]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)


if __name__ == "__main__":
    main()
