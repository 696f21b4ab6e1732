# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of internal_certificates: keeps the CA, decides what is issued, signs. Documentation is in the module."""

from __future__ import annotations

import datetime
import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils import _secrets
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca, _internal_ca_run, _secrets_run


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        if _internal_ca.MISSING:
            raise AnsibleActionFail(f"Python's cryptography is missing here ({_internal_ca.MISSING}); run: pip install 'cryptography>=45'")
        arguments = dict(self._task.args)
        try:
            self._keeper = self._new_keeper(arguments)
            result.update(self._run(arguments))
        except (_secrets.SecretsError, _internal_ca.CaError) as error:
            raise AnsibleActionFail(str(error)) from error
        if self._keeper.warnings:
            result["warnings"] = [*result.get("warnings", []), *self._keeper.warnings]
        return result

    def _run(self, arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        policy, now = self._keeper.policy, self._keeper.now
        certificates = arguments.get("certificates")
        if not isinstance(certificates, list):
            raise AnsibleActionFail("certificates must be a list of mappings with name and hosts")
        problems = _internal_ca_run.certificate_problems(certificates, policy)
        if problems:
            raise AnsibleActionFail("; ".join(problems))
        ca = self._keeper.maintained([host for item in certificates for host in item["hosts"]])
        arguments.update(ca_certificate=ca.root, crls=ca.crls)

        inspected = self._module(arguments, phase="inspect")
        if inspected.get("failed"):
            return inspected
        chains = {name: found["certificate"] for name, found in inspected["found"].items()}
        ca = self._keeper.compared(ca, chains, inspected["crls"], self._host())
        arguments["crls"] = ca.crls
        reasons = {}
        for item in certificates:
            found = inspected["found"][item["name"]]
            reason = _internal_ca.reason_to_issue(found["certificate"], found["public_key"], item["hosts"], ca, policy, now)
            # What a placeholder kept the place for has come.
            replaced = item.get("placeholder") and found["public_key"] and _internal_ca.is_foreign(found["certificate"], ca)
            if reason and not replaced:
                reasons[item["name"]] = reason
        changed_names = set(reasons) | set(inspected["repaired"])
        outdated = inspected["outdated"] or inspected["crls"] != ca.crls
        result: t.Dict[str, t.Any] = {
            "changed": bool(changed_names) or outdated,
            "issued": reasons,
            "changed_units": sorted(
                {unit for item in certificates if item["name"] in changed_names for unit in item.get("reload_units") or []}
            ),
            "diff": [
                {"before_header": f"certificate {name}", "after_header": f"certificate {name}", "before": f"{why}\n", "after": "issued\n"}
                for name, why in reasons.items()
            ],
        }
        if self._task.check_mode:
            return result
        if reasons or outdated:
            failed = self._install(arguments, ca, {item["name"]: item["hosts"] for item in certificates if item["name"] in reasons})
            if failed:
                return {**result, **failed}
        result["changed"] = self._publish(ca.root) or result["changed"]
        return result

    def _install(
        self, arguments: t.Dict[str, t.Any], ca: _internal_ca.Ca, hosts: t.Dict[str, t.List[str]]
    ) -> t.Optional[t.Dict[str, t.Any]]:
        requested = self._module(arguments, phase="request", requested=list(hosts)) if hosts else {"requests": {}}
        if requested.get("failed"):
            return requested
        signed = [
            {
                "name": name,
                "generation": answer["generation"],
                "certificate": _internal_ca.issue(ca, answer["request"], hosts[name], self._keeper.policy, self._keeper.now),
            }
            for name, answer in requested["requests"].items()
        ]
        if signed:
            # Written down before it is handed out: what nobody remembers cannot be revoked by its name.
            self._keeper.record({item["name"]: item["certificate"] for item in signed}, self._host())
        installed = self._module(arguments, phase="install", signed=signed)
        return installed if installed.get("failed") else None

    def _new_keeper(self, arguments: t.Dict[str, t.Any]) -> _internal_ca_run.Keeper:
        path, inventory = arguments.get("secrets_file"), self._variables.get("inventory_dir")
        if not path:
            raise AnsibleActionFail("secrets_file is missing: name the vault-encrypted file that keeps the key of the issuing CA")
        root_file = arguments.get("root_file")
        return _internal_ca_run.Keeper(
            _secrets_run.secrets_file(path, inventory, self._loader),
            _secrets_run.secrets_path(root_file, inventory) if root_file else "",
            arguments.get("controller_ca_file") or "",
            self._policy(arguments),
            datetime.datetime.now(datetime.timezone.utc),
            bool(self._task.check_mode),
        )

    def _policy(self, arguments: t.Dict[str, t.Any]) -> _internal_ca.Policy:
        try:
            policy = _internal_ca.Policy(
                common_name=arguments.get("common_name") or "civitas.hosting internal CA",
                permitted=self._list(arguments, "permitted_names"),
                lifetime=datetime.timedelta(days=int(arguments.get("lifetime_days", 180))),
                renew_before=datetime.timedelta(days=int(arguments.get("renew_before_days", 120))),
                revoked=self._list(arguments, "revoked"),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise AnsibleActionFail(f"lifetime_days and renew_before_days must be numbers of days: {error}") from error
        problems = _internal_ca.policy_problems(policy)
        if problems:
            raise AnsibleActionFail("; ".join(problems))
        return policy

    @staticmethod
    def _list(arguments: t.Dict[str, t.Any], name: str) -> t.List[t.Any]:
        value = arguments.get(name) or []
        if not isinstance(value, list):
            raise AnsibleActionFail(f"{name} must be a list")
        return value

    def _publish(self, certificate: str) -> bool:
        """Write the root's certificate on the controller; hosts of one run may do so at the same time, with the same content."""
        path = self._keeper.published
        if not path or _internal_ca_run.read(path) == certificate:
            return False
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(certificate)
        os.replace(temporary, path)
        return True

    def _host(self) -> str:
        return str(self._variables.get("inventory_hostname", ""))

    def _module(self, arguments: t.Dict[str, t.Any], **phase: t.Any) -> t.Dict[str, t.Any]:
        return t.cast(
            t.Dict[str, t.Any],
            self._execute_module("civitas.hosting.internal_certificates", module_args={**arguments, **phase}, task_vars=self._variables),
        )
