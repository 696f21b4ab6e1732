# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal CA as a run keeps it: in the secrets file, with the root in a file of its own that may be away. Runs on the controller.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import os
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _secrets
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca
from ansible_collections.civitas.hosting.plugins.plugin_utils._internal_ca import Ca, CaError, Policy, Root

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


class Keeper:
    """The CA of one environment.

    Args:
        secrets: the environment's secrets file.
        root_path: the file of the root, C(ca-root.yml) beside the secrets file when empty.
        published: where people find the root's certificate; empty for nowhere.
        policy: what the inventory asks for, without problems.
        now: the time of the run, aware of its time zone.
        check: change no file.
    """

    def __init__(
        self, secrets: _secrets.SecretsFile, root_path: str, published: str, policy: Policy, now: datetime.datetime, check: bool
    ) -> None:
        self.secrets = secrets
        self.root_file = secrets.sibling(root_path or os.path.join(os.path.dirname(secrets.path), "ca-root.yml"))
        self.published = published
        self.policy = policy
        self.now = now
        self.check = check
        self.warnings: t.List[str] = []

    def stored(self) -> Ca:
        """The CA as it is kept, judged.

        Raises:
            CaError, SecretsError: it cannot be used, or is not the one that people trust.
        """
        ca = _ca({name: self.secrets.get(name) or "" for name in KEPT})
        _internal_ca.check(ca, self.now)
        self._check_published(ca)
        return ca

    def problem(self, hosts: t.Sequence[str]) -> str:
        """Why a run would fail that issues certificates for C(hosts); empty when it would not."""
        try:
            ca = self.stored()
            # A root that is here, or can be made, helps.
            root = os.path.exists(self.root_file.path) or not ca.root
            urgent = [] if root else [need for need in _internal_ca.needs_of_root(ca, self.policy, hosts, self.now) if need.urgent]
        except (CaError, _secrets.SecretsError) as error:
            return str(error)
        return self._asks(urgent) if urgent else ""

    def maintained(self, hosts: t.Sequence[str]) -> Ca:
        """The CA, made or renewed when it is time, that can issue certificates for C(hosts).

        Raises:
            CaError, SecretsError: it cannot; the message says what to do.
        """
        ca = self.stored()
        if _internal_ca.needs_of_root(ca, self.policy, hosts, self.now) or _internal_ca.list_is_due(ca, self.policy, self.now):
            ca = self.change(lambda kept: self._renewed(kept, hosts))
        told = [need for need in _internal_ca.needs_of_root(ca, self.policy, hosts, self.now) if need.told]
        if told:
            self.warnings.append(self._asks(told))
        for serial in _internal_ca.unknown_serials(self.policy, ca):
            self.warnings.append(
                f"certificates_revoked: no valid certificate with the serial number {serial} was issued here; compare it, or remove it"
            )
        if os.path.exists(self.root_file.path):
            self.warnings.append(
                f"Whoever has {self.root_file.path} and the vault password can impersonate every internal service. Move it to two places "
                "offline, such as storage media in two safes. It is needed again when the issuing CA is renewed, before "
                f"{_internal_ca.end_of_issuing(ca):%Y-%m-%d}."
            )
        return ca

    def _renewed(self, ca: Ca, hosts: t.Sequence[str]) -> Ca:
        """Called under the lock of the secrets file, so that hosts of one run agree on one CA."""
        needs = _internal_ca.needs_of_root(ca, self.policy, hosts, self.now)
        if needs:
            root = self._root(ca)
            if root:
                ca = _internal_ca.renew(ca, root, self.policy, hosts, self.now)
            urgent = [need for need in needs if need.urgent]
            if not root and urgent:
                raise CaError(self._asks(urgent))
        return _internal_ca.renew_list(ca, self.policy, self.now) if _internal_ca.list_is_due(ca, self.policy, self.now) else ca

    def _asks(self, needs: t.Sequence[_internal_ca.Need]) -> str:
        reasons = "; ".join(need.reason for need in needs)
        return f"Internal CA: {reasons}. Bring the file of the root's key back to {self.root_file.path}, run again, and take it away"

    def _root(self, ca: Ca) -> t.Optional[Root]:
        """The root that is at hand; a new one when there was never one."""
        if os.path.exists(self.root_file.path):
            self._protect_root_file()
            root = Root(self.root_file.get(ROOT_KEY) or "", self.root_file.get(ROOT_CERTIFICATE) or "")
            try:
                _internal_ca.check_root(root, ca)
            except CaError as error:
                raise CaError(f"{self.root_file.path}: {error}") from error
            return root
        if ca.root:
            return None
        root = _internal_ca.create_root(self.policy.common_name, self.now)
        if not self.check:
            self.root_file.ensure({ROOT_KEY: lambda: root.key, ROOT_CERTIFICATE: lambda: root.certificate})
            self._protect_root_file()
        return root

    def _protect_root_file(self) -> None:
        path = self.root_file.path
        if os.stat(path).st_mode & 0o077 and not self.check:
            try:
                os.chmod(path, 0o600)
            except OSError as error:
                raise CaError(f"{path} can be read by others: {error.strerror}; run: chmod 600 {path}") from error
            # A medium without permissions accepts the call and does nothing.
            if os.stat(path).st_mode & 0o077:
                raise CaError(f"{path} can be read by others and its file system has no permissions; copy it to one that has")

    def _check_published(self, ca: Ca) -> None:
        """A root that people trust already is not replaced by accident."""
        published, root = read(self.published), ca.root
        if not root and os.path.exists(self.root_file.path):
            root = self.root_file.get(ROOT_CERTIFICATE) or ""
        if published and not _internal_ca.same(published, root):
            raise CaError(
                f"{self.published} is not the root certificate of the CA in {self.secrets.path}, which is an older copy or another "
                f"file. Restore the right one. To begin with a new CA, which all clients have to trust anew, remove {self.published}"
            )

    # What hosts know.

    def compared(self, ca: Ca, chains: t.Mapping[str, str], crls: str, host: str) -> Ca:
        """What a host has tells whether the secrets file is an older copy. What can be made up for, is.

        Args:
            ca: the CA.
            chains: the certificates of the host, by name; empty texts where there are none.
            crls: its revocation lists.
            host: its name.

        Raises:
            CaError: a newer issuing CA signed them, or the clock is wrong.
        """
        if any(_internal_ca.is_newer(chain, ca) for chain in chains.values()):
            raise CaError(
                f"The host has certificates of a newer issuing CA than {self.secrets.path} holds: the file is an older copy. Restore the "
                "newest one. If that is lost, remove the lines internal_ca_issuing_key and internal_ca_issuing_certificate from it, and "
                f"bring {self.root_file.path} back for a new issuing CA"
            )
        if _internal_ca.is_behind(ca, crls, self.now):
            ca = self.change(lambda kept: _internal_ca.catch_up(kept, crls, self.policy, self.now))
            self.warnings.append(f"{self.secrets.path} was an older copy: its revocation lists are made up from the host's")
        forgotten = {name: chain for name, chain in chains.items() if _internal_ca.is_forgotten(chain, ca)}
        if forgotten:
            self.record(forgotten, host)
            self.warnings.append(f"{self.secrets.path} was an older copy: it did not know the certificates {', '.join(forgotten)}")
        return ca

    def record(self, chains: t.Mapping[str, str], host: str) -> None:
        """Write down what was issued to C(host)."""
        owner = "".join(host.split()) or "-"
        entries = [_internal_ca.entry_of(chain, f"{owner}/{name}") for name, chain in chains.items()]
        self.change(lambda kept: _internal_ca.record(kept, entries, self.now))

    def change(self, function: t.Callable[[Ca], Ca]) -> Ca:
        """Apply C(function) to what the secrets file keeps; in check mode to a copy."""
        if self.check:
            return function(_ca({name: self.secrets.get(name) or "" for name in KEPT}))

        def changed(values: t.Dict[str, str]) -> t.Dict[str, str]:
            ca = function(_ca(values))
            return {name: getattr(ca, field) for name, field in KEPT.items()}

        return _ca(self.secrets.change(list(KEPT), changed))


def certificate_problems(certificates: t.Sequence[t.Mapping[str, t.Any]], policy: Policy) -> t.List[str]:
    """What is wrong with names that certificates are asked for, C(name) and C(hosts) each."""
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
            problems.extend(f"the certificate {name}: {problem}" for problem in _host_problems(item["hosts"], policy))
    return sorted(set(problems))


def _host_problems(hosts: t.Sequence[t.Any], policy: Policy) -> t.Iterator[str]:
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


def _ca(values: t.Mapping[str, str]) -> Ca:
    return Ca(**{field: values[name] for name, field in KEPT.items()})


def read(path: str) -> str:
    """The text of a file, empty when there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""
