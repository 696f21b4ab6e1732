#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: confirm_access
short_description: Proves by a new connection that a host can still be reached, and lets the changes to its way in stay
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Ends what the option O(civitas.hosting.config_tree#module:revert) of M(civitas.hosting.config_tree), and other modules that change SSH,
    PAM, firewall or network, have begun. The host goes back to its old state by itself unless this task succeeds in time.
  - Makes a new connection, without multiplexing, as the task's own user and with its privilege escalation, and drops the way back over it.
  - When the host does not accept the new connection, waits until it has gone back, and fails then.
  - Fails also when the host has taken back an earlier change of the same run, although later ones are confirmed. One of an earlier run that
    nobody heard of is warned about.
  - The proof is for everything that is in effect on the host by then, whichever task or run made it.
options:
  timeout:
    description: Seconds to wait for a host that accepts no new connection. It needs no more than 120 to go back.
    type: int
    default: 180
attributes:
  check_mode:
    description: Does nothing in check mode, as nothing was changed.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
notes:
  - Run it after the services have taken their new configuration, and only when something waits, such as with
    C(when) and RV(civitas.hosting.config_tree#module:revert_pending).
seealso:
  - module: civitas.hosting.config_tree
  - module: civitas.hosting.revert_point
"""

EXAMPLES = r"""
- name: Change who may log in
  civitas.hosting.config_tree:
    src: "{{ role_path }}/templates/root"
    verify: ["/usr/sbin/sshd -t"]
    revert:
      actions: [[systemctl, reload-or-restart, ssh.service]]
  register: tree

- name: Reload the SSH server when its files are newer than it is
  civitas.hosting.systemd_units:
    units:
      - {name: ssh.service, state: started, reload_when_newer: [/etc/ssh/sshd_config.d]}

- name: Prove that the host can still be reached
  civitas.hosting.confirm_access:
  when: tree.revert_pending
"""

RETURN = r"""
pending:
  description: What still waits, in the form of RV(civitas.hosting.revert_point#module:pending). Nothing after success.
  returned: always
  type: dict
confirmed:
  description: What waited and stays now. Nothing when nothing waited.
  returned: always
  type: dict
reverted:
  description: The report of the host that went back, in the form of RV(civitas.hosting.revert_point#module:last).
  returned: when the host went back
  type: dict
"""
