# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How hosts are reached through a bastion: what Ansible's ssh is told, and what people write into their own configuration of ssh.

Private to the collection: no promise of stability. Runs on the controller only.
"""

from __future__ import annotations

import re
import shlex
import typing as t

from ansible import constants
from ansible.plugins.loader import connection_loader

HostVars = t.Mapping[str, t.Mapping[str, t.Any]]

# What the way through the bastion adds to the bastion's own arguments, which come first and therefore win.
_ALWAYS = ("BatchMode=yes", "StrictHostKeyChecking=yes", "ControlMaster=no", "ControlPath=none", "ForwardAgent=no")
_PROXY = re.compile(r"(?i)(^|\s|=|'|\")(-J|(-o\s*)?Proxy(Jump|Command)\b)")


class BastionError(Exception):
    """The bastion cannot be used; the text says what to write."""


def arguments(hostvars: HostVars, host: str, bastion: str) -> str:
    """Return what C(ansible_ssh_extra_args) of C(host) must be, its own value from the inventory included.

    Args:
        hostvars: Ansible's variable of that name; the inventory's variables, without those of a play.
        host: name of the host in the inventory.
        bastion: name of the bastion in the inventory; empty when there is none. It is itself reached directly.

    Raises:
        BastionError: there is no such host, it is not reached by SSH, or C(host) has a proxy of its own.
    """
    own = str(hostvars[host].get("ansible_ssh_extra_args") or "")
    if not bastion or bastion == host:
        return own
    _check(hostvars, bastion)
    for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args"):
        if _PROXY.search(str(hostvars[host].get(name) or "")):
            raise BastionError(
                f"{host}: {name} sets a proxy, and civitas_bastion says that the way leads through {bastion}. Remove one of them: "
                f"the proxy from {name}, or write civitas_bastion: '' for this host"
            )
    return f"{own} -o {shlex.quote('ProxyCommand=' + proxy_command(hostvars[bastion]))}".lstrip()


def proxy_command(variables: t.Mapping[str, t.Any]) -> str:
    """Return the command by which ssh reaches any host through the bastion with these variables: as Ansible would log in there itself."""
    words = ["ssh", "-W", "[%h]:%p"]
    for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
        words += [_literal(word) for word in shlex.split(str(_option(name, variables) or ""))]
    for name, key in (("port", "Port"), ("remote_user", "User"), ("private_key_file", "IdentityFile")):
        value = _option(name, variables)
        if value:
            words += ["-o", _literal(f'{key}="{value}"' if key == "IdentityFile" else f"{key}={value}")]
    for setting in _ALWAYS:
        words += ["-o", setting]
    return " ".join([*(shlex.quote(word) for word in words), "--", shlex.quote(_literal(str(_option("host", variables))))])


def ssh_config(hostvars: HostVars, hosts: t.Sequence[str], bastion: str) -> str:
    """Return a block for people's C(~/.ssh/config): the bastion, and all other hosts behind it."""
    _check(hostvars, bastion)
    blocks = []
    for name in [bastion, *(host for host in hosts if host != bastion and _is_ssh(hostvars[host]))]:
        lines = [f"Host {name}", f"    HostName {_option('host', hostvars[name])}", f"    Port {_option('port', hostvars[name]) or 22}"]
        if name != bastion:
            lines.append(f"    ProxyJump {bastion}")
        blocks.append("\n".join([*lines, "    StrictHostKeyChecking yes", "    ForwardAgent no"]))
    return "\n\n".join(blocks) + "\n"


def _check(hostvars: HostVars, bastion: t.Any) -> None:
    if not isinstance(bastion, str) or bastion not in hostvars:
        raise BastionError(f"civitas_bastion is {bastion!r:.80}, which is no host of this inventory; write the name of the bastion there")
    if not _is_ssh(hostvars[bastion]):
        raise BastionError(f"civitas_bastion is {bastion}, which is not reached by SSH; remove its ansible_connection")
    if str(hostvars[bastion].get("civitas_bastion") or bastion) != bastion:
        raise BastionError(f"{bastion} is a bastion that is itself behind another one; only one step is supported")


def _is_ssh(variables: t.Mapping[str, t.Any]) -> bool:
    return str(variables.get("ansible_connection") or "ssh") in ("ssh", "smart", "ansible.builtin.ssh")


def _option(name: str, variables: t.Mapping[str, t.Any]) -> t.Any:
    """An option of Ansible's connection, found where Ansible itself would: variables, command line, environment, ansible.cfg."""
    # The options are known once the plugin is.
    plugin = connection_loader.get("ssh", class_only=True)
    return constants.config.get_config_value(name, plugin_type="connection", plugin_name=plugin._load_name, variables=variables)


def _literal(word: str) -> str:
    # ssh puts the target's name where a proxy command has a token.
    return word.replace("%", "%%")
