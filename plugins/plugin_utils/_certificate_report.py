# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges what was gathered from files, servers and deliveries, and says it so that it can be read out on the phone.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import re
import textwrap
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_chain as chains
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_delivery as delivery
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_files as files_
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, as_dict, in_order, problem

if t.TYPE_CHECKING:
    from cryptography import x509

Source = t.Dict[str, t.Any]

_WIDTH = 100
_GOOD = {
    "file": "Good: nothing is wrong with it.",
    "endpoint": "Good: it is served as it should be.",
    "delivery": "Good: hand it in.",
}


class Judge:
    """Judges sources by the same trust, time and revocation lists.

    Args:
        trust: PEM of the roots.
        at: the time to judge at.
        crls: revocation lists.
    """

    def __init__(self, trust: str, at: datetime.datetime, crls: t.Sequence[x509.CertificateRevocationList] = ()) -> None:
        self.trust = trust
        self.at = at
        self.crls = crls

    def file(self, name: str, gathered: t.Mapping[str, t.Any], hostnames: t.Sequence[str]) -> Source:
        """A file of a host, as C(gather_file) found it."""
        if gathered["error"]:
            return _source(name, "file", error=gathered["error"], error_kind="unreadable")
        problems = []
        if gathered["holds_key"]:
            problems.append(problem("private_key_in_certificate_file", f"{name} holds a private key beside the certificate."))
        return self._judged(name, "file", gathered, hostnames, problems)

    def endpoint(self, name: str, gathered: t.Mapping[str, t.Any], hostnames: t.Sequence[str]) -> Source:
        """A server, as C(gather_endpoint) found it."""
        if gathered["error"]:
            return _source(name, "endpoint", error=gathered["error"], error_kind=gathered["error_kind"])
        return {**self._judged(name, "endpoint", gathered, hostnames, []), "protocol": gathered["protocol"], "cipher": gathered["cipher"]}

    def delivery(
        self,
        files: t.Sequence[t.Tuple[str, bytes]],
        hostnames: t.Sequence[str],
        passphrase: t.Optional[str] = None,
        key_needed: bool = True,
        fetch: t.Optional[t.Callable[[str], bytes]] = None,
    ) -> Source:
        """Files that belong together, as an issuer sent them."""
        intake = delivery.take_in(
            files,
            trust=self.trust,
            hostnames=hostnames,
            passphrase=passphrase,
            at=self.at,
            fetch=fetch,
            crls=self.crls,
            key_needed=key_needed,
        )
        name = ", ".join(files_.printable(name) for name, _content in files)
        notes = intake.notes + ([] if hostnames else ["No name was given, so it was not judged whether it is for the right one."])
        return _source(name, "delivery", intake.info.get("chain", []), intake.problems, notes)

    def _judged(
        self, name: str, kind: str, gathered: t.Mapping[str, t.Any], hostnames: t.Sequence[str], problems: t.List[Problem]
    ) -> Source:
        bag = files_.read([(name, gathered["certificates"].encode())])
        facts = [chains.describe(one, self.at) for one in bag.certificates]
        problems = problems + bag.problems
        if not bag.certificates:
            return _source(name, kind, facts, problems)
        public_key = files_.read_public_key(gathered["public_key"]) if gathered.get("public_key") else None
        verdict = chains.judge(
            bag.certificates, delivery.roots_of(self.trust), hostnames=hostnames, public_key=public_key, at=self.at, crls=self.crls
        )
        verdict = chains.with_lists(verdict, self.crls, self.at)
        notes = list(verdict.notes)
        if not verdict.problems and bag.certificates[: len(verdict.chain)] != verdict.chain:
            notes.append("The certificates are not in their order (the server's own first); some programs refuse that.")
        elif not verdict.problems and len(bag.certificates) > len(verdict.chain):
            notes.append("There are more certificates than are needed, such as the root.")
        return _source(name, kind, facts, problems + verdict.problems, notes)


def _source(
    name: str,
    kind: str,
    certificates: t.Sequence[t.Mapping[str, t.Any]] = (),
    problems: t.Sequence[Problem] = (),
    notes: t.Sequence[str] = (),
    error: str = "",
    error_kind: str = "",
) -> Source:
    return {
        "source": name,
        "kind": kind,
        "good": not problems and not error,
        "certificates": list(certificates),
        "problems": [as_dict(one) for one in in_order(problems)],
        "notes": list(notes),
        "error": error,
        "error_kind": error_kind,
        "protocol": "",
        "cipher": "",
    }


def report(sources: t.Sequence[Source]) -> str:
    """All of it for people: a table of the certificates of each source, and what is wrong with what to do about it."""
    return "\n\n".join(_told(source) for source in sources)


def _told(source: Source) -> str:
    lines = [f"{source['source']} ({source['protocol']})" if source["protocol"] else source["source"]]
    if source["error"]:
        return "\n".join([*lines, *_paragraph(f"No certificate: {source['error']}.")])
    if source["certificates"]:
        names = source["certificates"][0]["names"]
        lines += ["", *_table(source["certificates"]), "", *_paragraph(f"For the names: {', '.join(names) or 'none'}")]
    lines += ["", *(line for note in source["notes"] for line in _paragraph(f"Note: {note}"))]
    if not source["problems"]:
        lines += _paragraph(_GOOD[source["kind"]])
    else:
        count = len(source["problems"])
        lines += _paragraph(f"Not good: {count} problem{'s' if count > 1 else ''}.")
    for number, one in enumerate(source["problems"], 1):
        lines += ["", *_paragraph(f"{number}. {one['message']} [{one['code']}]"), *_paragraph(f"What to do: {one['remedy']}", "     ")]
    return "\n".join(line.rstrip() for line in lines)


def _table(certificates: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    rows = [("certificate", "issued by", "valid from", "valid to", "days left")]
    for one in certificates:
        rows.append((_short(one["subject"]), _short(one["issuer"]), one["not_before"][:10], one["not_after"][:10], str(one["days_left"])))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]


def _short(name: str) -> str:
    """What people call it: the common name, else the organization, else all there is."""
    for attribute in ("CN", "O"):
        found = re.search(rf"(?:^|[,+]){attribute}=((?:\\.|[^,+\\])*)", name)
        if found:
            name = re.sub(r"\\(.)", r"\1", found[1])
            break
    name = name or "(no name)"
    return name if len(name) <= 40 else f"{name[:37]}..."


def _paragraph(text: str, indent: str = "  ") -> t.List[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
