#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_project_info
short_description: How the services of a Compose project do, and which of them use outdated files
version_added: 0.1.0
description:
  - Reads the containers of a Compose project. For each that is not well, it tells what its health check said and how its log ends.
  - Finds containers that still see the old version of a mounted file, such as a secret or a certificate, after it was replaced on the host.
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
  project:
    description: Name of the project.
    type: str
    required: true
  log_lines:
    description: How many lines of the log of a service that is not well are returned.
    type: int
    default: 20
  secrets_directory:
    description: Directory on the host whose files are secret. What they hold is masked in the logs.
    type: path
"""

EXAMPLES = r"""
- name: Read how the application does
  civitas.hosting.compose_project_info:
    project: demo
  register: result
"""

RETURN = r"""
services:
  description: The services by name.
  returned: always
  type: dict
  contains:
    container:
      description: Name of the container; of the last one, when there are several.
      type: str
    state:
      description: As Docker calls it, such as V(running) or V(exited).
      type: str
    health:
      description: V(healthy), V(unhealthy), V(starting), or empty without a health check.
      type: str
    exit_code:
      description: The exit code of a container that ended.
      type: int
    outdated_files:
      description: Files on the host of which the container sees an older version.
      type: list
      elements: str
outdated:
  description: The services with outdated files.
  returned: always
  type: list
  elements: str
problems:
  description: One text per service that is not well.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._compose_project import (
    ComposeError,
    containers,
    describe,
    explain,
    mask,
    secret_values,
    service_of,
    well,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "log_lines": {"type": "int", "default": 20},
            "secrets_directory": {"type": "path", "no_log": False},
        },
        supports_check_mode=True,
    )
    docker = module.get_bin_path("docker")
    services, outdated, problems = {}, set(), []
    secrets = secret_values(module.params["secrets_directory"]) if module.params["secrets_directory"] else []
    try:
        for container in containers(module.run_command, docker, module.params["project"]) if docker else []:
            description = describe(container)
            services[service_of(container)] = description
            if description["outdated_files"]:
                outdated.add(service_of(container))
            if not well(description):
                problems.append(mask(explain(container, description, module.run_command, docker, module.params["log_lines"]), secrets))
    except ComposeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, services=services, outdated=sorted(outdated), problems=problems)


if __name__ == "__main__":
    main()
