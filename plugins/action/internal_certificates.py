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

# What the secrets file keeps, by the fields of Ca; only the key is secret.
KEPT = {
    "internal_ca_root_certificate": "root",
    "internal_ca_issuing_key": "key",
    "internal_ca_issuing_certificate": "certificate",
    "internal_ca_crls": "crls",
    "internal_ca_issued": "issued",
}
# What the file of the root keeps.
ROOT_KEY = "internal_ca_root_key"
ROOT_CERTIFICATE = "internal_ca_root_certificate"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        self._warnings: t.List[str] = []
        if _internal_ca.MISSING:
            raise AnsibleActionFail(f"Python's cryptography is missing here ({_internal_ca.MISSING}); run: pip install 'cryptography>=45'")
        self._now = datetime.datetime.now(datetime.timezone.utc)
        arguments = dict(self._task.args)
        try:
            result.update(self._run(arguments))
        except (_secrets.SecretsError, _internal_ca.CaError) as error:
            raise AnsibleActionFail(str(error)) from error
        if self._warnings:
            result["warnings"] = [*result.get("warnings", []), *self._warnings]
        return result

    def _run(self, arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        policy = self._policy(arguments)
        certificates = self._certificates(arguments, policy)
        ca = self._ca(arguments, policy, [host for item in certificates for host in item["hosts"]])
        arguments.update(ca_certificate=ca.root, crls=ca.crls)

        inspected = self._module(arguments, phase="inspect")
        if inspected.get("failed"):
            return inspected
        ca = self._compare(policy, ca, inspected)
        arguments["crls"] = ca.crls
        reasons = {}
        for item in certificates:
            found = inspected["found"][item["name"]]
            reason = _internal_ca.reason_to_issue(found["certificate"], found["public_key"], item["hosts"], ca, policy, self._now)
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
            failed = self._install(arguments, policy, ca, {item["name"]: item["hosts"] for item in certificates if item["name"] in reasons})
            if failed:
                return {**result, **failed}
        result["changed"] = self._publish(arguments.get("controller_ca_file"), ca.root) or result["changed"]
        return result

    def _install(
        self, arguments: t.Dict[str, t.Any], policy: _internal_ca.Policy, ca: _internal_ca.Ca, hosts: t.Dict[str, t.List[str]]
    ) -> t.Optional[t.Dict[str, t.Any]]:
        requested = self._module(arguments, phase="request", requested=list(hosts)) if hosts else {"requests": {}}
        if requested.get("failed"):
            return requested
        signed = [
            {
                "name": name,
                "generation": answer["generation"],
                "certificate": _internal_ca.issue(ca, answer["request"], hosts[name], policy, self._now),
            }
            for name, answer in requested["requests"].items()
        ]
        if signed:
            # Written down before it is handed out: what nobody remembers cannot be revoked by its name.
            self._record({item["name"]: item["certificate"] for item in signed})
        installed = self._module(arguments, phase="install", signed=signed)
        return installed if installed.get("failed") else None

    # What is asked for.

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

    def _certificates(self, arguments: t.Dict[str, t.Any], policy: _internal_ca.Policy) -> t.List[t.Dict[str, t.Any]]:
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
                problems.extend(f"the certificate {name}: {problem}" for problem in self._host_problems(item["hosts"], policy))
        if problems:
            raise AnsibleActionFail("; ".join(sorted(set(problems))))
        return certificates

    def _host_problems(self, hosts: t.List[t.Any], policy: _internal_ca.Policy) -> t.Iterator[str]:
        wrong = {str(host): _internal_ca.check_host(str(host)) for host in hosts}
        yield from (f"{host!r}: {why}" for host, why in wrong.items() if why)
        good = [host for host, why in wrong.items() if not why]
        for host in _internal_ca.outside(good, policy.permitted):
            yield f"{host!r} is not among the names that this CA is for; add it to certificates_ca_permitted_names"
        for host in _internal_ca.revoked_names(policy, good):
            yield (
                f"{host!r} is in certificates_revoked and gets no certificate; remove it there, or, to replace just the one in use, "
                "write its serial number in its place (openssl x509 -noout -serial -in fullchain.pem)"
            )

    # The CA.

    def _ca(self, arguments: t.Dict[str, t.Any], policy: _internal_ca.Policy, hosts: t.List[str]) -> _internal_ca.Ca:
        path = arguments.get("secrets_file")
        if not path:
            raise AnsibleActionFail("secrets_file is missing: name the vault-encrypted file that keeps the key of the issuing CA")
        inventory = self._variables.get("inventory_dir")
        self._secrets = _secrets_run.secrets_file(path, inventory, self._loader)
        root_file = arguments.get("root_file") or os.path.join(os.path.dirname(self._secrets.path), "ca-root.yml")
        self._root_file = self._secrets.sibling(_secrets_run.secrets_path(root_file, inventory))

        ca = self._kept({name: self._secrets.get(name) or "" for name in KEPT})
        _internal_ca.check(ca, self._now)
        self._check_published(arguments.get("controller_ca_file"), ca)
        if _internal_ca.needs_of_root(ca, policy, hosts, self._now) or _internal_ca.list_is_due(ca, policy, self._now):
            ca = self._change(lambda kept: self._maintained(kept, policy, hosts))
        for need in _internal_ca.needs_of_root(ca, policy, hosts, self._now):
            if need.told:
                self._warnings.append(f"Internal CA: {need.reason}. {self._how_to_bring_the_root()}")
        for serial in _internal_ca.unknown_serials(policy, ca):
            self._warnings.append(
                f"certificates_revoked: no valid certificate with the serial number {serial} was issued here; compare it, or remove it"
            )
        if os.path.exists(self._root_file.path):
            end = _internal_ca.end_of_issuing(ca)
            self._warnings.append(
                f"Whoever has {self._root_file.path} and the vault password can impersonate every internal service. Move it to two places "
                f"offline, such as storage media in two safes. It is needed again when the issuing CA is renewed, before {end:%Y-%m-%d}."
            )
        return ca

    def _maintained(self, ca: _internal_ca.Ca, policy: _internal_ca.Policy, hosts: t.List[str]) -> _internal_ca.Ca:
        """Called under the lock of the secrets file, so that hosts of one run agree on one CA."""
        needs = _internal_ca.needs_of_root(ca, policy, hosts, self._now)
        if needs:
            root = self._root(ca, policy)
            if root:
                ca = _internal_ca.renew(ca, root, policy, hosts, self._now)
            urgent = [need.reason for need in needs if need.urgent]
            if not root and urgent:
                raise _internal_ca.CaError(f"Internal CA: {'; '.join(urgent)}. {self._how_to_bring_the_root()}")
        return _internal_ca.renew_list(ca, policy, self._now) if _internal_ca.list_is_due(ca, policy, self._now) else ca

    def _root(self, ca: _internal_ca.Ca, policy: _internal_ca.Policy) -> t.Optional[_internal_ca.Root]:
        """The root that is at hand; a new one when there was never one."""
        if os.path.exists(self._root_file.path):
            self._protect_root_file()
            found = {name: self._root_file.get(name) or "" for name in (ROOT_KEY, ROOT_CERTIFICATE)}
            root = _internal_ca.Root(found[ROOT_KEY], found[ROOT_CERTIFICATE])
            try:
                _internal_ca.check_root(root, ca)
            except _internal_ca.CaError as error:
                raise _internal_ca.CaError(f"{self._root_file.path}: {error}") from error
            return root
        if ca.root:
            return None
        root = _internal_ca.create_root(policy.common_name, self._now)
        if not self._task.check_mode:
            self._root_file.ensure({ROOT_KEY: lambda: root.key, ROOT_CERTIFICATE: lambda: root.certificate})
            self._protect_root_file()
        return root

    def _protect_root_file(self) -> None:
        path = self._root_file.path
        if os.stat(path).st_mode & 0o077 and not self._task.check_mode:
            try:
                os.chmod(path, 0o600)
            except OSError as error:
                raise _internal_ca.CaError(f"{path} can be read by others: {error.strerror}; run: chmod 600 {path}") from error
            # A medium without permissions accepts the call and does nothing.
            if os.stat(path).st_mode & 0o077:
                raise _internal_ca.CaError(f"{path} can be read by others and its file system has no permissions; copy it to one that has")

    def _how_to_bring_the_root(self) -> str:
        return f"Bring the file of the root's key back to {self._root_file.path}, run again, and take it away."

    def _compare(self, policy: _internal_ca.Policy, ca: _internal_ca.Ca, inspected: t.Dict[str, t.Any]) -> _internal_ca.Ca:
        """What the host has tells whether the secrets file is an older copy: what can be made up for is, else the run ends."""
        chains = {name: found["certificate"] for name, found in inspected["found"].items()}
        if any(_internal_ca.is_newer(chain, ca) for chain in chains.values()):
            raise _internal_ca.CaError(
                f"The host has certificates of a newer issuing CA than {self._secrets.path} holds: the file is an older copy. Restore the "
                "newest one. If that is lost, remove the lines internal_ca_issuing_key and internal_ca_issuing_certificate from it, and "
                f"bring {self._root_file.path} back for a new issuing CA"
            )
        if _internal_ca.is_behind(ca, inspected["crls"], self._now):
            ca = self._change(lambda kept: _internal_ca.catch_up(kept, inspected["crls"], policy, self._now))
            self._warnings.append(f"{self._secrets.path} was an older copy: its revocation lists are made up from the host's")
        forgotten = {name: chain for name, chain in chains.items() if _internal_ca.is_forgotten(chain, ca)}
        if forgotten:
            self._record(forgotten)
            self._warnings.append(f"{self._secrets.path} was an older copy: it did not know the certificates {', '.join(forgotten)}")
        return ca

    def _record(self, chains: t.Dict[str, str]) -> None:
        host = "".join(str(self._variables.get("inventory_hostname", "")).split()) or "-"
        entries = [_internal_ca.entry_of(chain, f"{host}/{name}") for name, chain in chains.items()]
        self._change(lambda kept: _internal_ca.record(kept, entries, self._now))

    def _change(self, function: t.Callable[[_internal_ca.Ca], _internal_ca.Ca]) -> _internal_ca.Ca:
        """Apply C(function) to what the secrets file keeps; in check mode to a copy."""
        if self._task.check_mode:
            return function(self._kept({name: self._secrets.get(name) or "" for name in KEPT}))

        def changed(values: t.Dict[str, str]) -> t.Dict[str, str]:
            ca = function(self._kept(values))
            return {name: getattr(ca, field) for name, field in KEPT.items()}

        return self._kept(self._secrets.change(list(KEPT), changed))

    @staticmethod
    def _kept(values: t.Mapping[str, str]) -> _internal_ca.Ca:
        return _internal_ca.Ca(**{field: values[name] for name, field in KEPT.items()})

    # The certificate for people.

    def _check_published(self, path: t.Optional[str], ca: _internal_ca.Ca) -> None:
        """A root that people trust already is not replaced by accident."""
        published, root = _read(path), ca.root
        if not root and os.path.exists(self._root_file.path):
            root = self._root_file.get(ROOT_CERTIFICATE) or ""
        if published and not _internal_ca.same(published, root):
            raise _internal_ca.CaError(
                f"{path} is not the root certificate of the CA in {self._secrets.path}: the secrets file is an older copy or another one. "
                f"Restore the right one. To begin with a new CA, which all clients have to trust anew, remove {path}"
            )

    def _publish(self, path: t.Optional[str], certificate: str) -> bool:
        """Write the root's certificate on the controller; hosts of one run may do so at the same time, with the same content."""
        if not path or _read(path) == certificate:
            return False
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


def _read(path: t.Optional[str]) -> str:
    try:
        with open(path or "", encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
