# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges where a site's certificate comes from and, when it is handed in, the files themselves. Runs on the controller.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import os
import stat
import typing as t
import warnings

from ansible_collections.civitas.hosting.plugins.module_utils import _policy
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_chain, _certificate_delivery, _certificate_policy
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_files import MAXIMUM_SIZE
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem

# (variable, what is wrong, what to do)
Finding = t.Tuple[str, str, str]

FILES = "civitas_certificate_files"
SOURCE = "civitas_certificate_source"
TRUST = "civitas_certificate_trust_file"


class Settings(t.NamedTuple):
    """What a site says of its certificate; paths are absolute."""

    policy: _policy.Policy
    application: str
    domain: str
    aliases: t.Sequence[str] = ()
    source: str = "internal"
    files: t.Sequence[str] = ()
    trust_file: str = ""
    # Where the certificate of the internal CA's root lies; it need not be there.
    internal_ca_file: str = ""
    passphrase: t.Optional[str] = None
    fetch_missing: bool = False
    acme_directory: str = ""
    acme_challenge: str = "http-01"
    waivers: t.Sequence[_policy.Waiver] = ()


class Judgement(t.NamedTuple):
    """C(findings) are refusals; C(advice) are sentences; C(waived) are the rules that a waiver set aside."""

    findings: t.List[Finding]
    advice: t.List[str]
    waived: t.List[str]


def judge(settings: Settings, at: t.Optional[datetime.datetime] = None) -> Judgement:
    """What is wrong with the site's certificate, judged at C(at), now unless given."""
    at = at or datetime.datetime.now(datetime.timezone.utc)
    stand, waived = _certificate_policy.waive(
        _certificate_policy.check_source_policy(settings.policy, settings.source, settings.acme_directory), settings.waivers
    )
    variable = "civitas_acme_directory" if settings.source == "acme" else SOURCE
    judgement = Judgement([_finding(variable, found, at) for found in stand], [], _rules(waived))
    if settings.source == "acme":
        judgement.findings.extend(_challenge(settings))
    if settings.source == "delivered":
        _judge_delivery(settings, at, judgement)
    return judgement


def _judge_delivery(settings: Settings, at: datetime.datetime, judgement: Judgement) -> None:
    if _certificate_delivery.MISSING:
        told = f"is delivered, and this machine's Python cannot judge certificates: {_certificate_delivery.MISSING}"
        judgement.findings.append((SOURCE, told, "Install Python's cryptography, 45 or newer, for the Python that runs Ansible."))
        return
    files, findings = _read(settings.files, FILES)
    trust_files, trust_findings = _read([settings.trust_file] if settings.trust_file else [], TRUST)
    judgement.findings.extend(findings + trust_findings)
    judgement.advice.extend(_readable_keys(files))
    if findings or trust_findings:
        return
    try:
        trust = trust_files[0][1].decode("utf-8", "replace") if trust_files else _certificate_delivery.system_trust()
        intake = _certificate_delivery.take_in(
            [(os.path.basename(path), content) for path, content in files],
            trust=trust,
            hostnames=_certificate_policy.names_to_serve(settings.application, settings.domain, settings.aliases),
            passphrase=settings.passphrase,
            at=at,
            fetch=_certificate_delivery.fetch if settings.fetch_missing else None,
        )
    except _certificate_delivery.DeliveryError as error:
        judgement.findings.append((TRUST, f"cannot be used: {error}", "Name a PEM file with the root that the certificate ends at."))
        return
    judgement.advice.extend(intake.notes)
    problems = list(intake.problems)
    if intake.info:
        roots = _roots(intake.info, trust, at)
        private = bool(settings.trust_file) and not roots & _known_roots()
        internal = bool(roots & _internal_roots(settings.internal_ca_file))
        asked = (settings.policy, settings.application, intake.info, settings.domain, settings.aliases, at, private, internal)
        stand, waived = _certificate_policy.waive(_certificate_policy.check_certificate_policy(*asked), settings.waivers)
        # Whether it is handed in now or serves already, only the host knows. A site must not become unmanageable when its certificate
        # grows old, so the installer refuses this and the validation tells it.
        judgement.advice.extend(f"{found.message} {found.remedy}" for found in stand if found.code == "policy_days_left")
        # A key that is too short was told already.
        elsewhere = {"policy_days_left"} | ({"policy_key_type"} if any(found.code == "weak_key" for found in problems) else set())
        problems += [found for found in stand if found.code not in elsewhere]
        judgement.waived.extend(_rules(waived))
        judgement.advice.extend(_certificate_policy.certificate_advice(settings.application, intake.info, settings.domain, private))
    judgement.findings.extend(_finding(FILES, found, at) for found in problems)


def _roots(info: t.Mapping[str, t.Any], trust: str, at: datetime.datetime) -> t.Set[t.Any]:
    """The roots that the chain may end at: those of C(trust) with the name of its last issuer."""
    issuer = (info.get("chain") or [info])[-1]["issuer"]
    with warnings.catch_warnings():
        # Distributions list roots with oddities that are not ours to judge.
        warnings.simplefilter("ignore")
        return {root for root in _certificate_delivery.roots_of(trust) if _certificate_chain.describe(root, at)["subject"] == issuer}


def _known_roots() -> t.Set[t.Any]:
    """The roots that this machine trusts, as browsers do; none when it has no bundle."""
    try:
        return set(_certificate_delivery.roots_of(_certificate_delivery.system_trust()))
    except _certificate_delivery.DeliveryError:
        return set()


def _internal_roots(path: str) -> t.Set[t.Any]:
    """The root of the internal CA; none when it has not been made yet."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return set(_certificate_delivery.roots_of(file.read(MAXIMUM_SIZE)))
    except (OSError, _certificate_delivery.DeliveryError):
        return set()


def _read(paths: t.Sequence[str], variable: str) -> t.Tuple[t.List[t.Tuple[str, bytes]], t.List[Finding]]:
    """The files' contents, one byte more than is ever read at most."""
    files: t.List[t.Tuple[str, bytes]] = []
    findings: t.List[Finding] = []
    for path in paths:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                findings.append((variable, f"names {path}, which is not a file", "Put the file there, or correct the path."))
                continue
            with open(path, "rb") as handle:
                files.append((path, handle.read(MAXIMUM_SIZE + 1)))
        except FileNotFoundError:
            findings.append((variable, f"names {path}: there is no such file on this machine", "Put the file there, or correct the path."))
        except OSError as error:
            findings.append((variable, f"names {path}, which cannot be read: {error.strerror}", f"Run chmod u+r {path} as its owner."))
    return files, findings


def _readable_keys(files: t.Sequence[t.Tuple[str, bytes]]) -> t.List[str]:
    advice = []
    for path, content in files:
        holds_key = b"PRIVATE KEY" in content or path.lower().endswith((".key", ".p12", ".pfx"))
        if holds_key and os.stat(path).st_mode & 0o007:
            advice.append(f"The private key in {path} can be read by everybody on this machine. Run chmod 600 {path}")
    return advice


def _challenge(settings: Settings) -> t.List[Finding]:
    if settings.acme_challenge == "dns-01" or not _policy.product_of(settings.application).wildcard:
        return []
    told = f"is {settings.acme_challenge}, and {settings.application} needs *.{settings.domain}, which is proven by a DNS record only"
    return [("civitas_acme_challenge", told, "Write civitas_acme_challenge: dns-01")]


def _finding(variable: str, found: Problem, at: datetime.datetime) -> Finding:
    who = f" ({found.certificate})" if found.certificate else ""
    rule = found.code.replace("policy_", "", 1)
    waiver = ""
    if found.code.startswith("policy_") and rule in _policy.WAIVABLE:
        day = (at.date() + datetime.timedelta(days=30)).isoformat()
        waiver = f' To accept it for a while, add to civitas_waivers: {{rule: {rule}, reason: <a sentence>, until: "{day}"}}.'
    return (variable, f"{found.code}: {found.message}{who}", f"{found.remedy}{waiver}")


def _rules(waived: t.Sequence[Problem]) -> t.List[str]:
    return [found.code.replace("policy_", "", 1) for found in waived]
