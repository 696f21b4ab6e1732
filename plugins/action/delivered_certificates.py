# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of delivered_certificates: reads and judges deliveries, sends what is not in use yet. Documentation is in the module."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_delivery as delivery
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_chain import describe
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_files import MAXIMUM_SIZE

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
except ImportError:
    pass

# What only the controller needs; the rest of a certificate's keys goes to the host.
OWN_KEYS = ("files", "passphrase", "trust_file", "fetch_missing", "minimum_days")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        if delivery.MISSING:
            raise AnsibleActionFail(f"Python's cryptography is missing here ({delivery.MISSING}); run: pip install 'cryptography>=45'")
        certificates = self._certificates()
        intakes = self._take_in(certificates)
        # The module wants the option; it has no use for what the files are called here.
        own = [{**{k: v for k, v in item.items() if k not in OWN_KEYS}, "files": []} for item in certificates]
        arguments = {key: value for key, value in self._task.args.items() if key != "pairs"}
        arguments["certificates"] = own

        inspected = self._module(arguments)
        if inspected.get("failed"):
            return {**result, **inspected}
        reasons = {name: reason for name, intake in intakes.items() if (reason := _reason(intake, inspected["found"][name]))}
        self._refuse_old(certificates, {name: intakes[name] for name in reasons})
        result.update(
            changed=bool(reasons) or inspected["changed"],
            installed=reasons,
            healed=inspected["healed"],
            warnings=[*result.get("warnings", []), *inspected.get("warnings", [])],
            diff=[_diff(name, intakes[name], inspected["found"][name]) for name in reasons],
        )
        if reasons and not self._task.check_mode:
            trust = {item["name"]: self._trust(item) for item in certificates}
            pairs = [
                {"name": name, "chain": intakes[name].fullchain, "key": intakes[name].key, "roots": _roots(intakes[name], trust[name])}
                for name in reasons
            ]
            installed = self._module({**arguments, "pairs": pairs})
            if installed.get("failed"):
                return {**result, **installed}
            result["notes"] = installed["notes"]
        return result

    def _certificates(self) -> t.List[t.Dict[str, t.Any]]:
        certificates = self._task.args.get("certificates")
        if not isinstance(certificates, list):
            raise AnsibleActionFail("certificates must be a list of mappings with name, hosts and files")
        problems = []
        names = [item.get("name") if isinstance(item, dict) else None for item in certificates]
        for name, item in zip(names, certificates):
            if not isinstance(name, str) or not name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
                problems.append(f"{name!r} is no name for a certificate; use letters, digits, - and _")
                continue
            if names.count(name) > 1:
                problems.append(f"the certificate {name} is declared {names.count(name)} times; join their hosts in one")
            for key, what in (("hosts", "names and addresses"), ("files", "files of the delivery")):
                if not isinstance(item.get(key), list) or not item[key]:
                    problems.append(f"the certificate {name} needs {key}, a list of {what}")
        if problems:
            raise AnsibleActionFail("; ".join(dict.fromkeys(problems)))
        return certificates

    def _take_in(self, certificates: t.Sequence[t.Dict[str, t.Any]]) -> t.Dict[str, delivery.Intake]:
        """Read and judge every delivery; refuses all that is wrong with any of them at once."""
        intakes = {}
        problems = []
        for item in certificates:
            name = item["name"]
            files = []
            unread = []
            for path in item["files"]:
                try:
                    files.append((os.path.basename(path), self._read(path, "files")))
                except delivery.DeliveryError as error:
                    unread.append(f"{name}: {error}")
            problems += unread
            if unread:
                continue
            try:
                intakes[name] = delivery.take_in(
                    files,
                    trust=self._trust(item),
                    hostnames=[str(host) for host in item["hosts"]],
                    passphrase=item.get("passphrase") or None,
                    fetch=delivery.fetch if item.get("fetch_missing") else None,
                )
            except (delivery.DeliveryError, ValueError) as error:
                problems.append(f"{name}: {error}")
                continue
            problems += [f"{name}: {found.code}: {found.message} {found.remedy}" for found in intakes[name].problems]
        if problems:
            raise AnsibleActionFail("Nothing was changed. " + " | ".join(problems))
        return intakes

    def _refuse_old(self, certificates: t.Sequence[t.Dict[str, t.Any]], intakes: t.Mapping[str, delivery.Intake]) -> None:
        wanted = {item["name"]: int(item.get("minimum_days") or 0) for item in certificates}
        problems = [
            f"{name}: policy_days_left: it is valid for {intake.info['days_left']} more days, wanted are {wanted[name]}; "
            "ask the issuer for a renewed one"
            for name, intake in intakes.items()
            if intake.info["days_left"] < wanted[name]
        ]
        if problems:
            raise AnsibleActionFail("Nothing was changed. " + " | ".join(problems))

    def _trust(self, item: t.Mapping[str, t.Any]) -> str:
        path = item.get("trust_file")
        if not path:
            return delivery.system_trust()
        return self._read(path, "trust_file").decode("utf-8", "replace")

    def _read(self, path: str, option: str) -> bytes:
        absolute = os.path.join(str(self._variables.get("inventory_dir") or "."), os.path.expanduser(path))
        remedy = f"put the file there, or write in {option} where it is; paths begin at the inventory's folder"
        try:
            # Opening a pipe would wait for somebody to write into it.
            if not stat.S_ISREG(os.stat(absolute).st_mode):
                raise delivery.DeliveryError(f"{absolute} is not a file; {remedy}")
            with open(absolute, "rb") as file:
                # One byte more than is taken, so that a larger file is seen as such and not as a damaged one.
                return file.read(MAXIMUM_SIZE + 1)
        except FileNotFoundError as error:
            raise delivery.DeliveryError(f"{absolute}: {error.strerror}; {remedy}") from error
        except OSError as error:
            raise delivery.DeliveryError(f"{absolute}: {error.strerror}; run chmod u+r {absolute} as its owner") from error

    def _module(self, arguments: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        return t.cast(
            t.Dict[str, t.Any],
            self._execute_module("civitas.hosting.delivered_certificates", module_args=arguments, task_vars=self._variables),
        )


def _reason(intake: delivery.Intake, found: t.Mapping[str, t.Any]) -> str:
    """Why a delivery is to be installed; empty when it is in use."""
    if not found["certificate"]:
        return "there is none"
    if found["certificate"] != intake.fullchain:
        return "another certificate is in use"
    key = serialization.load_pem_private_key(intake.key.encode(), None)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    if not found["public_key"]:
        return "its key is missing"
    return "its key is another one" if found["public_key"].strip() != public.strip() else ""


def _roots(intake: delivery.Intake, trust: str) -> str:
    """The roots that the chain may end at: a bundle of a whole distribution is not worth sending."""
    last = x509.load_pem_x509_certificates(intake.fullchain.encode())[-1]
    return "".join(
        root.public_bytes(serialization.Encoding.PEM).decode() for root in delivery.roots_of(trust) if root.subject == last.issuer
    )


def _diff(name: str, intake: delivery.Intake, found: t.Mapping[str, t.Any]) -> t.Dict[str, str]:
    before = "none\n"
    if found["certificate"]:
        try:
            before = _shown(describe(x509.load_pem_x509_certificate(found["certificate"].encode())))
        except ValueError:
            before = "unreadable\n"
    header = f"certificate {name}"
    return {"before_header": header, "after_header": header, "before": before, "after": _shown(intake.info)}


def _shown(info: t.Mapping[str, t.Any]) -> str:
    lines = {
        "for": ", ".join(info["names"]),
        "from": info["issuer"],
        "until": info["not_after"],
        "SHA-256": info["fingerprint_sha256"],
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items())
