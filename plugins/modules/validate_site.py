# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_site
short_description: Judge inventory, variables and secrets before any host is touched
version_added: 0.1.0
author: [The founders of civitas.hosting (@civitas-hosting)]
description:
  - Judges the whole inventory on the controller, whatever C(--limit) says, connects to no host, and fails with all problems at once, each
    with the variable, what is wrong and what to write.
  - It looks at the site-wide variables C(civitas_...), the shape of the inventory, the variables of every role that will run on a host
    against the role's argument spec, the ports that the roles declare, the controller's files that they bring to hosts, the rules of the
    kind of environment, the certificate of the public site, and the secrets file.
  - A certificate that was delivered is read and judged here, for the names of the site and by the rules of environment and product.
  - When there is no problem it generates the secrets that the roles declare and that the secrets file lacks, in one write.
  - A value that depends on the host's facts cannot be judged yet and is no problem. No message holds the value of a secret.
options:
  roles:
    description:
      - Which roles of this collection run on which group of hosts, in their order; a list stands for all hosts.
    type: raw
    required: true
  computed_files:
    description:
      - Files of variables that the tier's play loads (C(vars_files)), relative to the playbook. Their variables are judged with the roles',
        and must not be set in the inventory. A file that does not exist is passed over.
    type: list
    elements: str
    default: []
  generate_secrets:
    description: Whether missing secrets are generated; in check mode they are not.
    type: bool
    default: false
attributes:
  check_mode:
    description: Judges the same and writes no secrets.
    support: full
  diff_mode:
    description: It changes no host; the secrets file is never shown.
    support: none
  platform:
    description: Runs on the controller.
    support: full
    platforms: posix
notes:
  - Runs once for the whole inventory.
"""

EXAMPLES = r"""
- name: Judge the inventory of a single server
  civitas.hosting.validate_site:
    roles:
      all: [base, docker, certificates, postgres, app_demo, nginx]
    generate_secrets: true
"""

RETURN = r"""
problems:
  description: All problems, in the order of the report.
  returned: always
  type: list
  elements: dict
  contains:
    where:
      description: Host, hosts, C(inventory), or the secrets file.
      type: str
    variable:
      description: The variable or the secret.
      type: str
    problem:
      description: What is wrong; reads on from the variable.
      type: str
    remedy:
      description: What to write.
      type: str
    source:
      description: File and line of the value, where known.
      type: str
notes:
  description: What is allowed and people should know, such as the waivers in force with the days that are left. Shown as warnings.
  returned: always
  type: list
  elements: str
generated_secrets:
  description: Names of the secrets that were generated.
  returned: always
  type: list
  elements: str
"""
