# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of certificate_info: reads deliveries, and judges what the module found on the host. Documentation is in the module."""

from __future__ import annotations

import datetime
import os
import stat
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_sources import DEFAULT_PORTS
from ansible_collections.civitas.hosting.plugins.modules.certificate_info import ARGUMENT_SPEC
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_delivery, _certificate_files
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_report import Judge, Source, report
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_text import TextError, moment

# Public authorities publish lists of a few megabytes.
_MAXIMUM_CRL_SIZE = 32 * 1024 * 1024


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        if _certificate_delivery.MISSING:
            raise AnsibleActionFail(
                f"Python's cryptography cannot be used here ({_certificate_delivery.MISSING}); run: pip install 'cryptography>=45'"
            )
        arguments = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        if not (arguments["files"] or arguments["endpoints"] or arguments["delivery"]):
            raise AnsibleActionFail("there is nothing to look at; write files, endpoints or delivery")
        try:
            judge = self._judge(arguments)
            sources = self._delivery(judge, arguments["delivery"]) if arguments["delivery"] else []
            gathered: t.Dict[str, t.Any] = {"files": [], "endpoints": []}
            if arguments["files"] or arguments["endpoints"]:
                # What the controller alone needs stays here: the passphrase would travel otherwise.
                asked = {name: arguments[name] for name in ("files", "endpoints", "timeout")}
                gathered = self._execute_module("civitas.hosting.certificate_info", module_args=asked, task_vars=task_vars)
                if "endpoints" not in gathered:
                    return {**result, **gathered}
            for one, found in zip(arguments["files"], gathered["files"]):
                sources.append(judge.file(one["path"], found, one["hostnames"]))
            for one, found in zip(arguments["endpoints"], gathered["endpoints"]):
                name = one["server_name"] or one["host"]
                sources.append(judge.endpoint(_place(one), found, [name] if one["hostnames"] is None else one["hostnames"]))
        except (_certificate_delivery.DeliveryError, TextError, ValueError) as error:
            raise AnsibleActionFail(str(error)) from None
        told = report(sources)
        if arguments["show"]:
            self._display.display(f"\n{told}\n")
        result.update(changed=False, good=all(source["good"] for source in sources), sources=sources, report=told)
        return result

    def _judge(self, arguments: t.Dict[str, t.Any]) -> Judge:
        trust = arguments["trust"]
        if not trust:
            trust = _certificate_delivery.system_trust()
        elif "-----BEGIN" not in trust:
            trust = _read(trust, "trust", _MAXIMUM_CRL_SIZE).decode("utf-8", "replace")
        _certificate_delivery.roots_of(trust)
        files = [(path, _read(path, "crls", _MAXIMUM_CRL_SIZE)) for path in arguments["crls"]]
        bag = _certificate_files.read(files, maximum_size=_MAXIMUM_CRL_SIZE)
        problems = [found.message for found in bag.problems]
        if files and not bag.crls and not problems:
            problems.append(f"there is no revocation list in {', '.join(path for path, _content in files)}")
        if problems:
            raise AnsibleActionFail(f"crls: {' '.join(problems)}")
        return Judge(trust, moment(arguments["at"]) or datetime.datetime.now(datetime.timezone.utc), bag.crls)

    def _delivery(self, judge: Judge, wanted: t.Dict[str, t.Any]) -> t.List[Source]:
        if not wanted["files"]:
            raise AnsibleActionFail("delivery.files is empty; name the files that the issuer sent, and the key")
        # The judge refuses what is larger, without having to see all of it.
        files = [(os.path.basename(path), _read(path, "delivery.files")) for path in wanted["files"]]
        fetch = _certificate_delivery.fetch if wanted["fetch_missing"] else None
        return [judge.delivery(files, wanted["hostnames"], wanted["passphrase"], wanted["key_needed"], fetch)]


def _place(endpoint: t.Mapping[str, t.Any]) -> str:
    host, port = endpoint["host"], endpoint["port"] or DEFAULT_PORTS[endpoint["starttls"]]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = endpoint["server_name"]
    return f"{name} on {place}" if name and name != host else place


def _read(path: str, option: str, maximum: int = _certificate_files.MAXIMUM_SIZE) -> bytes:
    """A file of the controller, one byte more than C(maximum) at most."""
    where = os.path.abspath(os.path.expanduser(path))
    try:
        if not stat.S_ISREG(os.stat(where).st_mode):
            raise AnsibleActionFail(f"{option}: {where} is not a file")
        with open(where, "rb") as file:
            return file.read(maximum + 1)
    except OSError as error:
        raise AnsibleActionFail(f"{option}: {where} cannot be read on this machine: {error.strerror}") from None
