# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of support_bundle: fetches what the host has redacted, redacts it again, writes it. Documented in the module."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import secrets
import shlex
import shutil
import tempfile
import typing as t

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._redaction import SHORTEST, Secret, pieces
from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsError
from ansible_collections.civitas.hosting.plugins.modules.support_bundle import ARGUMENT_SPEC
from ansible_collections.civitas.hosting.plugins.plugin_utils import _secrets_rotation, _secrets_run, _support_bundle

Result = t.Dict[str, t.Any]
_LIMITS = {"hours": 720, "log_megabytes": 50}
# What the connection logs in with, besides what the secrets file has.
_LOGINS = (
    "ansible_password",
    "ansible_ssh_pass",
    "ansible_ssh_password",
    "ansible_become_password",
    "ansible_become_pass",
    "ansible_sudo_pass",
)
# Of what a host has in /run while it is fetched.
_REMOTE = "/run/civitas-support-bundle-"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[Result] = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        variables = task_vars or {}
        given = [name for name in ("path", "owner") if name in self._task.args]
        if given:
            raise AnsibleActionFail(f"support_bundle: {given[0]} is set by the action itself; remove it")
        arguments = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        result["changed"] = False
        try:
            _judge(arguments)
            known = self._known(arguments, variables)
            if arguments["state"] == "begun":
                result.update(self._begin(arguments))
            elif arguments["state"] == "collected":
                result.update(self._collect(arguments, variables, known))
            else:
                result.update(self._finish(arguments, known))
        except (SecretsError, _support_bundle.BundleError) as error:
            result.update(failed=True, msg=str(error))
        return result

    def _begin(self, arguments: Result) -> Result:
        directory = self._loader.path_dwim(str(arguments["directory"]))
        _support_bundle.check_directory(directory)
        moment = datetime.datetime.now(datetime.timezone.utc)
        name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', arguments['site'])}-{moment:%Y-%m-%dT%H%M%SZ}"
        _support_bundle.shared_key(constants.DEFAULT_LOCAL_TMP)
        if self._task.check_mode:
            return {"bundle": os.path.join(directory, name)}
        return {"bundle": _support_bundle.make_directory(directory, name)}

    def _collect(self, arguments: Result, variables: Result, known: t.Sequence[Secret]) -> Result:
        asked = {name: arguments[name] for name in ("state", "hours", "log_megabytes", "application_logs")}
        if self._task.check_mode:
            return dict(self._execute_module("civitas.hosting.support_bundle", module_args=asked, task_vars=variables))
        host = str(variables["inventory_hostname"])
        remote = f"{_REMOTE}{secrets.token_hex(8)}"
        scratch = tempfile.mkdtemp(dir=constants.DEFAULT_LOCAL_TMP)
        local = os.path.join(scratch, "host.zip")
        try:
            account = self._low_level_execute_command("id -u", sudoable=False)["stdout"].strip()
            if not account.isdigit():
                raise _support_bundle.BundleError(f"{host} does not say which account Ansible logs in with. Look whether a login works.")
            asked.update(path=f"{remote}/bundle.zip", owner=int(account))
            answer = dict(self._execute_module("civitas.hosting.support_bundle", module_args=asked, task_vars=variables))
            if answer.get("failed") or answer.get("unreachable"):
                return answer
            self._fetch(asked["path"], local)
            addresses = None
            if arguments["mask_addresses"]:
                addresses = _support_bundle.Addresses(_support_bundle.shared_key(constants.DEFAULT_LOCAL_TMP))
            target = os.path.join(arguments["bundle"], _support_bundle.file_name(host))
            told = _support_bundle.second_pass(local, target, host, known, addresses, scratch)
            return {"told": told._asdict()}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            with contextlib.suppress(AnsibleError):
                timer = f"{os.path.basename(remote)}.timer"
                self._low_level_execute_command(f"rm -rf -- {shlex.quote(remote)}; systemctl stop {shlex.quote(timer)} >/dev/null 2>&1")

    def _fetch(self, remote: str, local: str) -> None:
        """By the connection's own way for files. Where that has to be the standard output, the terminal shows nothing of it."""
        hidden = self._play_context.no_log
        self._play_context.no_log = True
        try:
            os.close(os.open(local, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._connection.fetch_file(remote, local)
        finally:
            self._play_context.no_log = hidden

    def _finish(self, arguments: Result, known: t.Sequence[Secret]) -> Result:
        hosts = {name: _told(answer) for name, answer in arguments["hosts"].items()}
        missing = sorted(name for name, told in hosts.items() if "reason" in told)
        size = _support_bundle.total(told["size"] for told in hosts.values() if "reason" not in told)
        if not self._task.check_mode:
            path = os.path.join(arguments["bundle"], "README.txt")
            moment = os.path.basename(arguments["bundle"])[-18:]
            text = _support_bundle.readme(arguments["site"], moment, hosts, arguments["application_logs"], _too_short(known))
            try:
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
                    stream.write(text)
            except OSError as error:
                raise _support_bundle.BundleError(f"{path} cannot be written: {error.strerror}") from None
        return {"missing_hosts": missing, "size": size}

    def _known(self, arguments: Result, variables: Result) -> t.List[Secret]:
        """All that the controller knows to be secret, each with a name that may be told."""
        path = arguments["secrets_file"]
        if not path and "civitas_secrets_file" in variables:
            path = self._templar.template(variables["civitas_secrets_file"])
        store = _secrets_run.secrets_file(path, variables.get("inventory_dir"), self._loader)
        if not os.path.exists(store.path):
            raise _support_bundle.BundleError(
                f"there is no secrets file {store.path}, so nobody knows what must not be in the bundle. "
                "Set civitas_secrets_file to the one of this site."
            )
        kept = store.sibling(_secrets_rotation.kept_path(store.path))
        found = [Secret(name, text) for file in (store, kept) for name, texts in file.texts().items() for text in texts]
        for _identity, secret in self._loader._vault.secrets or ():
            with contextlib.suppress(AttributeError, UnicodeDecodeError):
                found.append(Secret("the vault password", secret.bytes.decode("utf-8")))
        for name in _LOGINS:
            with contextlib.suppress(AnsibleError):
                value = self._templar.template(variables[name]) if variables.get(name) else ""
                found.append(Secret(name, str(value)))
        return [secret for secret in found if secret.value.strip()]


def _judge(arguments: Result) -> None:
    """What is written wrong is said before any host is asked."""
    for name, most in _LIMITS.items():
        if not 1 <= arguments[name] <= most:
            raise _support_bundle.BundleError(f"support_bundle_{name} is {arguments[name]}. Write a whole number from 1 to {most}.")
    needed = "directory" if arguments["state"] == "begun" else "bundle"
    if not arguments[needed]:
        raise _support_bundle.BundleError(f"support_bundle needs {needed} for state={arguments['state']}.")


def _too_short(known: t.Sequence[Secret]) -> t.List[str]:
    return sorted({secret.name for secret in known if any(len(piece) < SHORTEST for piece in pieces(secret.value))})


def _told(answer: t.Any) -> Result:
    """What a host's result says, of whatever kind it is."""
    if isinstance(answer, dict) and isinstance(answer.get("told"), dict):
        return dict(answer["told"])
    said = str(answer.get("msg") or "") if isinstance(answer, dict) else ""
    return {"reason": " ".join(said.split())[:500] or "it was not asked"}
