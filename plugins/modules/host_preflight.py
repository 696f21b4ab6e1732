#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_preflight
short_description: Judge a host before anything on it is changed
version_added: 0.1.0
description:
  - Reads what a host must have before roles run and reports everything that is missing at once, each with what to do.
  - Judges the release and its end of life, architecture, systemd, memory, processors, disk, free space and inodes, read-only file
    systems, the clock, unfinished packages, a package manager at work, name resolution and the host name.
  - Changes nothing. It only waits, up to O(lock_timeout), for a package manager that is at work.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: The module never changes anything.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  minimum_memory_mb:
    description: Least memory in MB. Ten percent less is accepted, as firmware and kernel take their part.
    type: int
    default: 0
  minimum_cpus:
    description: Least number of processors.
    type: int
    default: 0
  minimum_disk_gb:
    description: Least size in GB of the file system that holds O(disk_path). Ten percent less is accepted.
    type: int
    default: 0
  disk_path:
    description: Where the data will lie. It need not exist yet; the nearest existing directory above it is judged.
    type: path
    default: /
  minimum_free_mb:
    description: Least free space in MB on C(/), C(/var) and O(disk_path).
    type: int
    default: 512
  controller_time:
    description: The controller's clock in seconds since 1970, to compare the host's with. Without it the clock is not judged.
    type: float
  clock_tolerance:
    description: Seconds by which the two clocks may differ.
    type: int
    default: 60
  resolve:
    description: Names that must have an address.
    type: list
    elements: str
    default: []
  lock_timeout:
    description: Seconds to wait for a package manager that is at work, such as the first automatic upgrade of a new machine.
    type: int
    default: 0
  today:
    description: Judge the end of life as of this day, as C(YYYY-MM-DD). By default the host's date.
    type: str
  fail:
    description: Whether problems fail the task. Otherwise they are shown as warnings and returned.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Judge the host
  civitas.hosting.host_preflight:
    minimum_memory_mb: 4096
    minimum_cpus: 2
    minimum_disk_gb: 40
    disk_path: /srv
    controller_time: "{{ now().timestamp() }}"
    resolve: [archive.example.org]
    lock_timeout: 300
"""

RETURN = r"""
findings:
  description: What is not as it must be, problems first.
  returned: always
  type: list
  elements: dict
  contains:
    level:
      description: V(problem), or V(warning) for what soon becomes one.
      type: str
    subject:
      description: What was judged.
      type: str
    wanted:
      description: How it must be.
      type: str
    found:
      description: How it is.
      type: str
    remedy:
      description: What to do.
      type: str
host:
  description: The values behind the judgement.
  returned: always
  type: dict
  sample:
    distribution: debian
    release: "13"
    codename: trixie
    architecture: amd64
    memory_mb: 3915
    cpus: 2
    disk_mb: 40960
    disk_free_mb: 35840
    hostname: records
    container: ""
    clock_offset: 0.4
"""

from datetime import date

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._host_preflight import Wanted, collect, judge, summary, table


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "minimum_memory_mb": {"type": "int", "default": 0},
            "minimum_cpus": {"type": "int", "default": 0},
            "minimum_disk_gb": {"type": "int", "default": 0},
            "disk_path": {"type": "path", "default": "/"},
            "minimum_free_mb": {"type": "int", "default": 512},
            "controller_time": {"type": "float"},
            "clock_tolerance": {"type": "int", "default": 60},
            "resolve": {"type": "list", "elements": "str", "default": []},
            "lock_timeout": {"type": "int", "default": 0},
            "today": {"type": "str"},
            "fail": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        today = date.fromisoformat(params["today"]) if params["today"] else None
    except ValueError:
        module.fail_json(msg="today: %r is not a day; write it like 2026-12-31." % params["today"])
    wanted = Wanted(
        memory_mb=params["minimum_memory_mb"],
        cpus=params["minimum_cpus"],
        disk_gb=params["minimum_disk_gb"],
        disk_path=params["disk_path"],
        free_mb=params["minimum_free_mb"],
        controller_time=params["controller_time"],
        clock_tolerance=params["clock_tolerance"],
        today=today,
    )
    host = collect(params["disk_path"], params["resolve"], params["lock_timeout"])
    findings = judge(host, wanted)
    result = {"findings": [finding.public() for finding in findings], "host": summary(host, wanted)}
    problems = [finding for finding in findings if finding.level == "problem"]
    if problems and params["fail"]:
        count = "1 problem" if len(problems) == 1 else "%d problems" % len(problems)
        module.fail_json(msg="%s on this host; nothing was changed.\n%s" % (count, table(problems)), **result)
    for finding in findings:
        module.warn("%s: wanted %s, found %s; %s" % (finding.subject, finding.wanted, finding.found, finding.remedy))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
