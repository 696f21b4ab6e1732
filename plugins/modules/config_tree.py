#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_tree
short_description: Apply a whole tree of configuration files in one call
version_added: 0.1.0
description:
  - Renders a tree of templates on the controller and puts it in place on the host in a single module call.
  - Everything is checked first. Then all files are staged beside their targets, with owner, mode and content, and validated. Only then are
    they renamed into place. When anything fails, everything is put back as it was and no temporary file stays.
  - The order is directories, staging, validation, files, links, removals, O(verify).
  - All problems are reported at once, each with its file and with what to write instead.
options:
  src:
    description:
      - Directory on the controller in the shape of the target. Each file below it becomes the file of the same path below O(root).
      - Files whose names end in C(.j2) are rendered and lose the ending. All others are copied byte for byte.
      - A relative path is looked up in the role's or the play's C(templates) directory.
      - Parts of paths may be templates. A rendered part must not be empty and must not hold a slash.
      - Templates include and import others as with M(ansible.builtin.template); keep those outside of O(src).
      - Symbolic links in it are refused. Use O(links) for a link on the host, and O(extra) for a template that is used several times.
    type: path
  root:
    description:
      - Directory on the host that the tree is put into. It must exist.
      - Links in the host's paths are followed as long as they stay below it.
    type: path
    default: /
  owner:
    description: Owner of files and directories, unless they have their own. A name or a number.
    type: str
    default: root
  group:
    description: Group of files and directories, unless they have their own. A name or a number.
    type: str
    default: root
  mode:
    description: Mode of files, unless they have their own. Octal, in quotes.
    type: str
    default: "0644"
  directory_mode:
    description:
      - Mode of directories that this module makes or that are listed in O(directories), unless they have their own.
      - Directories that exist and are not listed are left alone.
    type: str
    default: "0755"
  files:
    description:
      - Attributes of single files, keyed by their path relative to O(root). Every path must be one of the tree in O(src).
      - C(mode), C(owner), C(group) override the defaults.
      - C(validate) is a command that judges the staged file before anything is put in place. It must contain C(%s), the path of that file.
        It is run without a shell and only when the content changes.
      - C(secret) keeps the old and the new content out of diffs, results and messages. As commands may quote what they read, no command's
        output is shown when a tree has a secret file.
      - C(enabled) set to false takes the file out of the tree; it is not rendered, and is removed from the host when present.
    type: dict
    default: {}
  extra:
    description:
      - Files that are not in O(src), such as several files from one template. A list of mappings.
      - C(dest) is the path relative to O(root). Required.
      - Either C(src), a file in the C(templates) search path, rendered when its name ends in C(.j2), or C(content), a text.
      - C(vars) are further variables for the template.
      - C(mode), C(owner), C(group), C(validate), C(secret) and C(enabled) as in O(files).
    type: list
    elements: dict
    default: []
  links:
    description: Symbolic links, from their path relative to O(root) to their target. An existing link is replaced, a file is not.
    type: dict
    default: {}
  directories:
    description:
      - Directories, keyed by their path relative to O(root). They are made when missing.
      - C(mode), C(owner), C(group) override the defaults.
      - C(exclusive) set to true removes regular files and links directly in it that are not part of the tree. Directories in it stay.
      - C(keep) is a list of file name patterns that C(exclusive) spares.
    type: dict
    default: {}
  absent:
    description: Files and links to remove, as paths relative to O(root).
    type: list
    elements: str
    default: []
  verify:
    description:
      - Commands that are run after everything is in place, without a shell, when something changed, and not in check mode.
      - When one fails, everything is put back as it was and the task fails with the command's output.
    type: list
    elements: str
    default: []
  revert:
    description:
      - For changes to the way in, such as SSH, PAM, firewall and network. Before the first change everything that will be changed is noted
        on the host, which goes back to it by itself unless M(civitas.hosting.confirm_access) confirms the change in time; so it does after
        a restart, and when the controller has died.
      - Set it to an empty mapping when nothing more is to be noted.
      - When a change of an earlier task or run still waits for confirmation, its deadline is extended.
    type: dict
    suboptions:
      actions:
        description: Commands to run after going back, each a list of words, such as C([systemctl, reload-or-restart, ssh.service]).
        type: list
        elements: list
        default: []
      tables:
        description: Tables of nftables to note as well, each its family and name, such as C(inet civitas).
        type: list
        elements: str
        default: []
      sysctls:
        description: Kernel parameters to note as well.
        type: list
        elements: str
        default: []
      seconds:
        description: Time from this task to the confirmation. From 5 to 100.
        type: int
        default: 90
  contents:
    description: Rendered contents. Filled in by the action plugin of the same name; not for playbooks.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details:
      - Users, groups and commands that do not exist yet are no error in check mode, as what provides them may not have been installed.
      - Commands are not run in check mode.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
notes:
  - A target that is a symbolic link is refused, and never written through.
  - Access control lists and extended attributes of a replaced file are not carried over.
  - Commands are looked up in the standard system directories, whatever the connection's C(PATH) is.
seealso:
  - module: ansible.builtin.template
author:
  - The founders of civitas.hosting (@civitas-hosting)
"""

EXAMPLES = r"""
- name: Apply the configuration
  civitas.hosting.config_tree:
    src: "{{ role_path }}/templates/root"
    files:
      etc/nginx/nginx.conf: {validate: "/usr/sbin/nginx -t -c %s"}
      etc/nginx/htpasswd: {mode: "0640", group: www-data, secret: true}
      etc/nginx/conf.d/status.conf: {enabled: "{{ nginx_status_enabled }}"}
    verify: ["/usr/sbin/nginx -t"]
  register: result

- name: Reload the service when its files changed
  ansible.builtin.systemd_service:
    name: nginx
    state: reloaded
  when: result.changed_paths | select('match', '/etc/nginx/') | length > 0

- name: One file per site, and no others
  civitas.hosting.config_tree:
    extra:
      - {dest: etc/nginx/sites/a.conf, src: site.conf.j2, vars: {site: a}}
      - {dest: etc/nginx/sites/b.conf, src: site.conf.j2, vars: {site: b}}
      - {dest: etc/nginx/sites/README, content: "Managed by Ansible\n"}
    directories:
      etc/nginx/sites: {mode: "0750", exclusive: true, keep: ["*.local"]}
    links:
      etc/localtime: /usr/share/zoneinfo/Etc/UTC
    absent:
      - etc/nginx/sites-enabled/default

- name: Change who may log in, with a way back
  civitas.hosting.config_tree:
    src: "{{ role_path }}/templates/root"
    verify: ["/usr/sbin/sshd -t"]
    revert:
      actions: [[systemctl, reload-or-restart, ssh.service]]
  register: tree
"""

RETURN = r"""
changed_paths:
  description:
    - Absolute paths of files and links that were made or changed, or would be in check mode. Changes of owner, group or mode only
      count as well.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/nginx.conf]
removed_paths:
  description: Absolute paths of files and links that were removed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/sites-enabled/default]
revert_pending:
  description: Whether a change waits for M(civitas.hosting.confirm_access), be it of this task, of an earlier one or of an earlier run.
  returned: success
  type: bool
diff:
  description:
    - One entry for each change of content, and one for each change of owner, group or mode.
    - The contents of secret and of removed files are never part of it.
  returned: in diff mode
  type: list
  elements: dict
"""

import signal
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._config_tree import Plan, Tree, TreeError, apply, build, plan


class Interrupted(Exception):
    pass


def interrupt(number: int, frame: object) -> NoReturn:
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(f"interrupted by signal {number}")


def apply_reverting(tree: Tree, also: dict[str, Any]) -> Plan:
    """Apply with a way back. What waits already is given time first: it could be taken back between comparison and change."""
    if _revert.pending() is not None:
        _revert.arm(**also)
    todo = plan(tree)
    if todo.changed:
        paths, attributes = todo.paths
        log = _revert.arm(paths, attributes=attributes, **also)

        def proof() -> str:
            late = f"took longer than the {also['seconds']} seconds after which the host goes back to its old state"
            return "" if _revert.holds(log) else late

        apply(todo, proof)
    return todo


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path"},
            "root": {"type": "path", "default": "/"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "directory_mode": {"type": "str", "default": "0755"},
            "files": {"type": "dict", "default": {}},
            "extra": {"type": "list", "elements": "dict", "default": []},
            "links": {"type": "dict", "default": {}},
            "directories": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "verify": {"type": "list", "elements": "str", "default": []},
            "revert": {
                "type": "dict",
                "options": {
                    "actions": {"type": "list", "elements": "list", "default": []},
                    "tables": {"type": "list", "elements": "str", "default": []},
                    "sysctls": {"type": "list", "elements": "str", "default": []},
                    "seconds": {"type": "int", "default": _revert.SECONDS},
                },
            },
            "contents": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    revert = module.params["revert"]
    try:
        tree = build(module.params)
        if module.check_mode:
            todo = plan(tree, check_mode=True)
        else:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, interrupt)
            if revert is None:
                todo = plan(tree)
                apply(todo)
            else:
                todo = apply_reverting(tree, revert)
        waits = revert is not None and _revert.pending() is not None
    except (TreeError, _revert.RevertError) as error:
        module.fail_json(msg=str(error))
    result = {
        "changed": todo.changed,
        "changed_paths": todo.changed_paths,
        "removed_paths": todo.removed_paths,
        "revert_pending": waits,
    }
    if module._diff:
        result["diff"] = todo.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
