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
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca, _secrets_run

CA_KEY = "internal_ca_key"
CA_CERTIFICATE = "internal_ca_certificate"


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
        now = datetime.datetime.now(datetime.timezone.utc)
        certificates = self._certificates(arguments)
        ca = self._ca(arguments, now)
        arguments["ca_certificate"] = ca.certificate

        inspected = self._module(arguments, phase="inspect")
        if inspected.get("failed"):
            return {**result, **inspected}
        reasons = {}
        for item in certificates:
            found = inspected["found"][item["name"]]
            renew = datetime.timedelta(days=int(arguments.get("renew_before_days", 60)))
            reason = _internal_ca.reason_to_issue(found["certificate"], found["public_key"], item["hosts"], ca, now, renew)
            if reason:
                reasons[item["name"]] = reason
        changed_names = set(reasons) | set(inspected["repaired"])
        result.update(
            changed=bool(changed_names) or inspected["ca_written"],
            issued=reasons,
            changed_units=sorted(
                {unit for item in certificates if item["name"] in changed_names for unit in item.get("reload_units") or []}
            ),
            diff=[
                {"before_header": f"certificate {name}", "after_header": f"certificate {name}", "before": f"{why}\n", "after": "issued\n"}
                for name, why in reasons.items()
            ],
        )
        if reasons and not self._task.check_mode:
            failure = self._issue(arguments, ca, now, {item["name"]: item["hosts"] for item in certificates if item["name"] in reasons})
            if failure:
                return {**result, **failure}
        if not self._task.check_mode:
            result["changed"] = self._publish(arguments.get("controller_ca_file"), ca.certificate) or result["changed"]
        return result

    def _issue(
        self, arguments: t.Dict[str, t.Any], ca: _internal_ca.Ca, now: datetime.datetime, hosts: t.Dict[str, t.List[str]]
    ) -> t.Optional[t.Dict[str, t.Any]]:
        requested = self._module(arguments, phase="request", requested=list(hosts))
        if requested.get("failed"):
            return requested
        lifetime = datetime.timedelta(days=int(arguments.get("lifetime_days", 397)))
        try:
            signed = [
                {
                    "name": name,
                    "generation": answer["generation"],
                    "certificate": _internal_ca.issue(ca, answer["request"], hosts[name], now, lifetime),
                }
                for name, answer in requested["requests"].items()
            ]
        except _internal_ca.CaError as error:
            raise AnsibleActionFail(str(error)) from error
        installed = self._module(arguments, phase="install", signed=signed)
        return installed if installed.get("failed") else None

    def _certificates(self, arguments: t.Dict[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
        certificates = arguments.get("certificates")
        if not isinstance(certificates, list):
            raise AnsibleActionFail("certificates must be a list of mappings with name and hosts")
        problems = []
        names = [item.get("name") if isinstance(item, dict) else None for item in certificates]
        for name, item in zip(names, certificates):
            if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_" for c in name):
                problems.append(f"{name!r} is no name for a certificate; use letters, digits, - and _")
            elif names.count(name) > 1:
                problems.append(f"the certificate {name} is declared {names.count(name)} times; join their hosts in one")
            elif not isinstance(item.get("hosts"), list) or not item["hosts"]:
                problems.append(f"the certificate {name} needs hosts, a list of names and addresses")
            else:
                wrong = {str(host): _internal_ca.check_host(str(host)) for host in item["hosts"]}
                problems.extend(f"the certificate {name}: {host!r}: {why}" for host, why in wrong.items() if why)
        if problems:
            raise AnsibleActionFail("; ".join(sorted(set(problems))))
        return certificates

    def _ca(self, arguments: t.Dict[str, t.Any], now: datetime.datetime) -> _internal_ca.Ca:
        path = arguments.get("secrets_file")
        if not path:
            raise AnsibleActionFail("secrets_file is missing: name the vault-encrypted file that keeps the key of the internal CA")
        fresh: t.List[_internal_ca.Ca] = []

        def new_ca() -> _internal_ca.Ca:
            if not fresh:
                fresh.append(_internal_ca.create_ca(arguments.get("common_name") or "civitas.hosting internal CA", now))
            return fresh[0]

        try:
            secrets = _secrets_run.secrets_file(path, self._variables.get("inventory_dir"), self._loader)
            if self._task.check_mode and secrets.names_missing([CA_KEY, CA_CERTIFICATE]):
                return new_ca()
            kept = secrets.ensure({CA_KEY: lambda: new_ca().key, CA_CERTIFICATE: lambda: new_ca().certificate})
            ca = _internal_ca.Ca(kept[CA_KEY], kept[CA_CERTIFICATE])
            _internal_ca.check_ca(ca, now)
        except (_secrets.SecretsError, _internal_ca.CaError) as error:
            raise AnsibleActionFail(str(error)) from error
        return ca

    def _publish(self, path: t.Optional[str], certificate: str) -> bool:
        """Write the CA's certificate on the controller; hosts of one run may do so at the same time, with the same content."""
        if not path:
            return False
        try:
            with open(path, encoding="ascii") as file:
                if file.read() == certificate:
                    return False
        except (FileNotFoundError, UnicodeDecodeError):
            pass
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(certificate)
        os.replace(temporary, path)
        return True

    def _module(self, arguments: t.Dict[str, t.Any], **phase: t.Any) -> t.Dict[str, t.Any]:
        return t.cast(
            t.Dict[str, t.Any],
            self._execute_module("civitas.hosting.internal_certificates", module_args={**arguments, **phase}, task_vars=self._variables),
        )
