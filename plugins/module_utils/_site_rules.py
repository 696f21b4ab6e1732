# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an inventory: pure functions from plain data to problems, one small function a rule.

Private to the collection: no promise of stability. A C(Finding) is V(None) or C((what is wrong, what to write)); the first part reads on
from the variable's name.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import ipaddress
import os
import re
import stat
import typing as t
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils import _alert_secrets, _policy
from ansible_collections.civitas.hosting.plugins.module_utils._container_images import sha256_of
from ansible_collections.civitas.hosting.plugins.module_utils._store_retention import rules_of
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_whole

try:
    import zoneinfo
except ImportError:  # pragma: no cover - Python before 3.9 runs the import test only
    zoneinfo = None  # type: ignore[assignment]

Finding = t.Optional[t.Tuple[str, str]]

TIERS = ("single", "tier4")
CERTIFICATE_SOURCES = ("internal", "delivered", "acme")
ACME_CHALLENGES = ("http-01", "dns-01")
EGRESS = ("restricted", "open")
# Hosts in this group let people through to the others.
BASTION_GROUP = "bastion"
# Hosts in this group watch the others.
MONITORING_GROUP = "monitoring"
# Hosts in this group keep the backups of the others.
BACKUP_GROUP = "backup"
# Hosts in this group restore backups of the servers for trial, by a key of their own.
DRILL_GROUP = "drill"
# A host in one of these groups has its roles and no others. The tier `single` may do without them.
SINGLE_PURPOSE_GROUPS = (BASTION_GROUP, MONITORING_GROUP, BACKUP_GROUP, DRILL_GROUP)
# Of the roles of a group, those that only a host has for which this variable is written.
ROLES_OF_VARIABLES = {"data_volume": "civitas_data_volume"}
# Groups without which an inventory is not of the tier, and what their hosts do.
NEEDED_GROUPS = {
    "tier4": {
        BASTION_GROUP: "lets people through to the others",
        MONITORING_GROUP: "watches the others",
        BACKUP_GROUP: "keeps the backups of the server",
    }
}
MONITORING_MODES = ("light", "full")
_BACKUP_KEYS = ("recipients", "quota_gigabytes", "retention", "schedule", "bandwidth_kib", "directory", "mount")
_BACKUP_COPY_KEYS = ("host", "schedule", "bandwidth_kib", "quota_gigabytes", "retention")
_DATA_VOLUME_KEYS = ("device", "path", "filesystem", "initialize", "encryption", "swap_size")
_DRILL_KEYS = ("hosts", "schedule")
_MONITORING_KEYS = ("page_name", "page_users", "page_networks", "heartbeat_secret", "probes", "runbooks")
WAY_IN = frozenset(f"civitas_{name}" for name in ("admin_networks", "automation", "bastion", "break_glass", "people"))
# What is a host's own.
OF_A_HOST = frozenset(f"civitas_{name}" for name in ("address", "data_volume", "heartbeat_secret", "monitoring_mode", "restore_drill"))
_MAIL_KEYS = ("host", "port", "tls", "tls_name", "ca_file", "user", "password_secret", "sender", "allowed_senders", "to", "dkim")
_MAIL_PROOF_KEYS = (
    *("domain", "envelope_domain", "selectors", "addresses", "nameservers", "smarthost"),
    *("sender", "recipient", "mailbox", "wait", "fail_on"),
)
_ACME_DIRECTORY = "https://acme-v02.api.letsencrypt.org/directory"
PREFIX = "civitas_"


class Problem(t.NamedTuple):
    """One thing to correct."""

    where: str
    variable: str
    problem: str
    remedy: str
    # "file:line" where the value was written, when that is known.
    source: str = ""


class Host(t.NamedTuple):
    """A host of the inventory.

    C(values) are the rendered site-wide and connection variables; what is in C(names) and not in C(values) could not be rendered.
    """

    name: str
    groups: t.Sequence[str]
    names: t.AbstractSet[str]
    values: t.Mapping[str, t.Any]


class SiteVariable(t.NamedTuple):
    required: bool
    check: t.Callable[[t.Any], Finding]
    example: str


# Values.


def show(value: t.Any) -> str:
    """A value for people: on one line, at most 60 characters, nothing that a terminal would obey."""
    if isinstance(value, str) and len(value) > 60:
        return f"{str(value[:60])!r}... ({len(value)} characters)"
    # Ansible's own kind of date has a long name.
    text = str(value) if isinstance(value, datetime.date) else repr(value)
    return text if len(text) <= 62 else f"{text[:60]}..."


def nearest(name: str, known: t.Iterable[str], cutoff: float = 0.7) -> str:
    """The name in C(known) that C(name) may have been meant to be, or an empty text."""
    return next(iter(difflib.get_close_matches(name[:128], list(known), n=1, cutoff=cutoff)), "")


def check_text(value: t.Any, advice: str) -> Finding:
    """Is it a text of one line without spaces around it?"""
    if not isinstance(value, str):
        return (f"is {show(value)}, {in_words(value)} and not a text", advice)
    if not value:
        return ("is empty", advice)
    if re.search(r"[\x00-\x1f\x7f]", value):
        return (f"is {show(value)}: it holds a line break or a control character", advice)
    if value != value.strip():
        return (f"is {show(value)}: it has spaces around it", advice)
    return None


def check_choice(value: t.Any, choices: t.Sequence[str]) -> Finding:
    """Is it one of C(choices)?"""
    advice = (
        f"Write one of {', '.join(choices)}."
        if choices
        else "There is nothing to choose from: the collection is incomplete, install it again."
    )
    finding = check_text(value, advice)
    if finding or value in choices:
        return finding
    meant = nearest(value.lower(), choices)
    return (f"is {show(value)}" + (f": did you mean {meant}?" if meant else ", which nobody knows"), advice)


def check_domain(value: t.Any) -> Finding:
    """Is it a name that people can type and a certificate can hold?"""
    advice = "Write the full name that people type, such as records.example.org."
    if isinstance(value, str) and value != value.strip() and check_domain(value.strip()) is None:
        return (f"is {show(value)}: it has spaces or line breaks around it", f"Write {value.strip()} without them.")
    finding = check_text(value, advice)
    if finding:
        return finding
    for rule in (_domain_form, _domain_address, _domain_spelling, _domain_labels, _domain_owner):
        finding = rule(value, advice)
        if finding:
            return finding
    return None


def _domain_form(value: str, advice: str) -> Finding:
    found = re.fullmatch(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?([^/:@]*)(?::(\d+))?(/.*)?", value)
    host = found.group(1) if found else ""
    if "://" in value:
        return (f"is {show(value)}: an address with a scheme and not a name", f"Write {host}" if check_domain(host) is None else advice)
    if "/" in value:
        return (f"is {show(value)}: it holds a path", f"Write {host}" if check_domain(host) is None else advice)
    if found and found.group(2) and not _is_address(value):
        return (
            f"is {show(value)}: it holds a port",
            f"Write {host}, and the port as civitas_public_https_port: {found.group(2)}" if check_domain(host) is None else advice,
        )
    if "*" in value:
        return (f"is {show(value)}: a wildcard is no name to visit", advice)
    if "@" in value:
        return (f"is {show(value)}: it looks like a mail address", advice)
    return None


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return False
    return True


def _domain_address(value: str, advice: str) -> Finding:
    if _is_address(value):
        return (f"is {show(value)}: an IP address has no certificate that people's browsers trust", advice)
    return None


def _domain_spelling(value: str, advice: str) -> Finding:
    if len(value) > 253:
        return (f"is {show(value)}: a name has at most 253 characters", advice)
    if not value.isascii():
        try:
            written = value.encode("idna").decode("ascii")
        except UnicodeError:
            return (f"is {show(value)}: it holds letters that a name cannot have", advice)
        return (f"is {show(value)}: names are written in the letters of DNS", f"Write {written}")
    if value != value.lower():
        return (f"is {show(value)}: it has upper-case letters", f"Write {value.lower()}")
    if "_" in value:
        return (
            f"is {show(value)}: an underscore is not allowed in the name of a site",
            f"Write {value.replace('_', '-')} or another name.",
        )
    if value.endswith("."):
        return (f"is {show(value)}: it ends with a dot", f"Write {value.rstrip('.')}")
    return None


def _domain_labels(value: str, advice: str) -> Finding:
    labels = value.split(".")
    if any(not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", label) for label in labels):
        return (f"is {show(value)}: parts of a name are 1 to 63 letters, digits and inner hyphens", advice)
    if labels[-1] == "localhost":
        return None
    if len(labels) == 1:
        return (f"is {show(value)}: a name without a domain", advice)
    if labels[-1].isdigit():
        return (f"is {show(value)}: its last part is a number", advice)
    return None


def _domain_owner(value: str, advice: str) -> Finding:
    if value == "primero.org" or value.endswith(".primero.org"):
        return (
            f"is {show(value)}: names below primero.org are the vendor's; a site on its own servers needs a domain of its own",
            "Register a domain that your organization owns and write a name of it.",
        )
    return None


def check_names(value: t.Any) -> Finding:
    """Is it a list of different names?"""
    advice = "Write a list of names, such as [www.example.org]."
    if not isinstance(value, list):
        return (f"is {show(value)}, {in_words(value)} and not a list", advice)
    for item in value:
        finding = check_domain(item)
        if finding:
            return (f"has an item that {finding[0]}", finding[1])
    twice = sorted({item for item in value if value.count(item) > 1})
    if twice:
        return (f"names {', '.join(twice)} twice", "Remove the repetition.")
    return None


def check_port(value: t.Any) -> Finding:
    """Is it a TCP port?"""
    advice = "Write a whole number from 1 to 65535; 443 needs no line at all."
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return (f"is {show(value)} and not a port", advice)
    if not 1 <= value <= 65535:
        return (f"is {show(value)} and out of range", advice)
    return None


def check_timezone(value: t.Any) -> Finding:
    """Does the time zone exist?"""
    finding = check_text(value, "Write a name of the time zone database, such as Etc/UTC or Africa/Nairobi.")
    if finding:
        return finding
    zones = _zones()
    # A controller without the database cannot tell.
    if not zones or value in zones:
        return None
    meant = nearest(value, zones)
    return (
        f"is {show(value)}: there is no such time zone",
        f"Write {meant}." if meant else "Write a name such as Etc/UTC or Africa/Nairobi.",
    )


@functools.lru_cache
def _zones() -> t.FrozenSet[str]:
    return frozenset(zoneinfo.available_timezones() if zoneinfo else ())


def check_path(value: t.Any) -> Finding:
    """Is it a path of a file?"""
    advice = "Write the path of a file, absolute or relative to the inventory's directory."
    finding = check_text(value, advice)
    if not finding and value.endswith("/"):
        return (f"is {show(value)}: a directory", advice)
    return finding


def check_files(value: t.Any) -> Finding:
    """Is it a list of different paths?"""
    advice = "Write a list of files, such as [certificate/fullchain.pem, certificate/key.pem]."
    if not isinstance(value, list):
        return (f"is {show(value)}, {in_words(value)} and not a list", advice)
    if not value:
        return ("is empty", advice)
    for item in value:
        finding = check_path(item)
        if finding:
            return (f"has an item that {finding[0]}", finding[1])
    twice = sorted({item for item in value if value.count(item) > 1})
    return (f"names {show(twice[0])} twice", "Remove the repetition.") if twice else None


def check_secret_name(value: t.Any) -> Finding:
    """Can it be the name of a secret, and not the secret itself? It is not shown, because people mistake the one for the other."""
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,127}", value):
        return None
    return (
        "is no name of a secret",
        "Write a name such as certificate_passphrase here, and the secret itself into the secrets file under that name.",
    )


def check_switch(value: t.Any) -> Finding:
    """Is it true or false?"""
    return None if isinstance(value, bool) else (f"is {show(value)}, {in_words(value)}", "Write true or false.")


def check_networks(value: t.Any) -> Finding:
    """Is it a list of networks or addresses?"""
    advice = "Write a list of networks or addresses, such as [192.0.2.0/24, 2001:db8::/48]."
    if not isinstance(value, list):
        return (f"is {show(value)}, {in_words(value)} and not a list", advice)
    if not value:
        return ("is empty", advice)
    for item in value:
        try:
            ipaddress.ip_network(item if isinstance(item, str) else "")
        except ValueError as error:
            told = f": {error}" if isinstance(item, str) and "host bits" in str(error) else ""
            return (f"has {show(item)}, which is no network{told}", advice)
    return None


def check_people(value: t.Any) -> Finding:
    """Is it a list of named people? What else they hold the role judges."""
    if isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value):
        return None
    return ("is no list of people", "Write a list such as [{name: first_admin, role: admin, ssh_keys: [ssh-ed25519 AAAA...]}].")


def check_contacts(value: t.Any) -> Finding:
    """Is it a list of who is called when hosts are lost?"""
    advice = 'Write a list such as [{name: Head of registry, does: decides, phone: "+15550100", email: head@example.org}].'
    if not isinstance(value, list):
        return (f"is {in_words(value)} and not a list", advice)
    for item in value:
        if not isinstance(item, dict) or not item.get("name"):
            return ("has an item that is no mapping with a name", advice)
        finding = _unknown_key(item, ("name", "does", "phone", "email"))
        if finding:
            return finding
        # Written without quotes, a number loses its plus sign and its zeros.
        if not all(isinstance(part, str) for part in item.values()):
            return (f"has {show(item['name'])} with something that is no text", "Write it in quotes.")
    return None


def check_account(value: t.Any) -> Finding:
    """Is it an account with keys? What it holds the role judges."""
    if isinstance(value, dict) and "ssh_keys" in value:
        return None
    return ("is no account", "Write a mapping such as {ssh_keys: [ssh-ed25519 AAAA...], from: [192.0.2.0/24]}.")


def check_announce_smtp(value: t.Any) -> Finding:
    """Is it a mail relay with somebody to write to, and without its password? What else it holds the role judges."""
    advice = "Write a mapping such as {host: mail.example.org, from: logins@example.org, to: [administrators@example.org]}."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    if "password" in value:
        return (
            "has password, and the inventory is no place for a secret",
            "Write password_secret: announce_smtp_password in its place, and the password into the secrets file under that name.",
        )
    lacking = [key for key in ("host", "from", "to") if not value.get(key)]
    if lacking:
        return (f"lacks {', '.join(lacking)}", advice)
    if bool(value.get("user")) != ("password_secret" in value):
        return ("has one of user and password_secret without the other", "Write both, or neither for a relay that asks for none.")
    return _key_of_secret(value, "password_secret")


def check_mail(value: t.Any) -> Finding:
    """Does it say by which server mail leaves, from whom and to whom, without a password? What else it holds the role judges."""
    advice = "Write a mapping such as {host: mail.example.org, sender: registry@example.org, to: [administrators@example.org]}."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    if "password" in value:
        return (
            "has password, and the inventory is no place for a secret",
            "Write password_secret: mail_password in its place, and the password into the secrets file under that name.",
        )
    lacking = [key for key in ("host", "sender", "to") if not value.get(key)]
    if lacking:
        return (f"lacks {', '.join(lacking)}", advice)
    unknown = _unknown_key(value, _MAIL_KEYS)
    if unknown:
        return unknown
    if bool(value.get("user")) != ("password_secret" in value):
        return ("has one of user and password_secret without the other", "Write both, or neither for a server that asks for none.")
    return _key_of_secret(value, "password_secret")


def check_mail_proof(value: t.Any) -> Finding:
    """Does it say what of the mail is proven, without secrets? What else it holds the playbook judges."""
    advice = "Write a mapping such as {selectors: [mail], addresses: [192.0.2.25]}."
    if not isinstance(value, dict) or not value:
        return ("is empty" if value == {} else f"is {in_words(value)} and not a mapping", advice)
    unknown = _unknown_key(value, _MAIL_PROOF_KEYS)
    if unknown:
        return unknown
    mailbox = value.get("mailbox", {"password_secret": "mailbox_password"})
    if not isinstance(mailbox, dict) or "password" in mailbox or "password_secret" not in mailbox:
        return (
            "has a mailbox without the name of its password, and the inventory is no place for a secret",
            "Write password_secret: mailbox_password, and the password into the secrets file under that name.",
        )
    return _key_of_secret(mailbox, "password_secret")


def check_webhook(value: t.Any, secret: str) -> Finding:
    """Does it name the secret that is the address? What else it holds the role judges. C(secret) is a name for the advice."""
    advice = f"Write {{url_secret: {secret}}}, and the address into the secrets file under that name."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    if "url" in value:
        return ("has url: whoever reads such an address may write there, and the inventory is no place for a secret", advice)
    if "url_secret" not in value:
        return ("lacks url_secret", advice)
    return _key_of_secret(value, "url_secret")


def check_alert_receivers(value: t.Any) -> Finding:
    """Is it a list of people who hear alarms, each by one way, and without secrets? What else it holds the role judges."""
    advice = "Write a list such as [{name: team, email: {to: [team@example.org]}}, {name: chat, webhook: {url_secret: chat_url}}]."
    if not isinstance(value, list) or not value:
        return (f"is {in_words(value) if not isinstance(value, list) else 'empty'}, so no alarm would reach anybody", advice)
    for item in value:
        if not isinstance(item, dict) or not item.get("name"):
            return ("has an item that is no mapping with a name", advice)
        ways = [way for way in _alert_secrets.KEYS if way in item]
        for way in ways:
            finding = _alarm_way(item[way], way)
            if finding:
                return (f"has {show(item['name'])}, whose {way} {finding[0]}", finding[1])
    return None


def _alarm_way(options: t.Any, way: str) -> Finding:
    if not isinstance(options, dict):
        return (f"is {in_words(options)} and not a mapping", f"Write {way}: {{url_secret: {way}_url}}.")
    for key, names_it in _alert_secrets.KEYS[way].items():
        if key in options:
            return (
                f"has {key}, and the inventory is no place for a secret",
                f"Write {names_it} in its place, with names of entries of the secrets file.",
            )
    if "url_secret" not in options:
        return ("lacks url_secret", f"Write {{url_secret: {way}_url}}, and the address into the secrets file under that name.")
    headers = options.get("headers_secret", {})
    if not isinstance(headers, dict):
        return (f"has headers_secret that is {in_words(headers)}", "Write a mapping such as {Authorization: sms_token}.")
    for name in _alert_secrets.names([{way: options}]):
        finding = check_secret_name(name)
        if finding:
            return (f"names a secret that {finding[0]}", finding[1])
    return None


def _unknown_key(value: t.Mapping[t.Any, t.Any], known: t.Sequence[str]) -> Finding:
    unknown = sorted(set(map(str, value)) - set(known))
    if not unknown:
        return None
    meant = nearest(unknown[0], known)
    return (
        f"has {show(unknown[0])}, which nobody reads" + (f": did you mean {meant}?" if meant else ""),
        f"Write one of {', '.join(known)}.",
    )


def _key_of_secret(value: t.Mapping[str, t.Any], key: str) -> Finding:
    finding = check_secret_name(value[key]) if key in value else None
    return (f"has a {key} that {finding[0]}", finding[1]) if finding else None


def check_host_name(value: t.Any) -> Finding:
    """Can it be the inventory's name of a host, or nothing?"""
    if isinstance(value, str) and re.fullmatch(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,252})?", value):
        return None
    return ("is no name of a host", "Write the name of the bastion as the inventory has it.")


def check_address(value: t.Any) -> Finding:
    """Is it an address that other hosts can reach?"""
    advice = "Write an address such as 192.0.2.10."
    try:
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        return (f"is {show(value)}: no address", advice)
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return (f"is {show(value)}: no other host reaches that", advice)
    return None


def check_monitoring(value: t.Any) -> Finding:
    """Does it say who sees the page and who hears that the monitoring is silent, without secrets? What else it holds the role judges."""
    advice = "Write a mapping such as {page_users: [anna], heartbeat_secret: heartbeat_url}."
    if not isinstance(value, dict) or not value:
        return ("is empty" if value == {} else f"is {in_words(value)} and not a mapping", advice)
    unknown = _unknown_key(value, _MONITORING_KEYS)
    if unknown:
        return unknown
    users = value.get("page_users", [])
    if not isinstance(users, list) or not all(isinstance(user, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,30}", user) for user in users):
        return (
            "has page_users that are no list of names",
            "Write names of small letters, digits and _, such as [anna]. Passwords are made in the secrets file: monitoring_page_anna.",
        )
    if value.get("page_name") and not users:
        return ("has page_name without page_users, so nobody could see the page", "Write page_users: [anna], or leave page_name out.")
    probes = value.get("probes", [])
    if not isinstance(probes, list) or not all(isinstance(probe, dict) for probe in probes):
        return (
            f"has probes that are {in_words(probes)} and no list of mappings",
            "Write a list such as [{name: helpdesk, type: http, target: https://helpdesk.example.org/}].",
        )
    for key, check in (("page_name", check_domain), ("page_networks", check_networks)):
        finding = check(value[key]) if key in value else None
        if finding:
            return (f"has {key}, which {finding[0]}", finding[1])
    return _key_of_secret(value, "heartbeat_secret")


def check_backup(value: t.Any) -> Finding:
    """Is it what backups are made of, as far as it is said in one place? What else it holds the roles judge."""
    advice = "Write a mapping such as {recipients: [age1..., age1...], quota_gigabytes: 200}."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    finding = _unknown_key(value, _BACKUP_KEYS)
    if finding:
        return finding
    lacking = [key for key in ("recipients", "quota_gigabytes") if not value.get(key)]
    if lacking:
        return (f"lacks {' and '.join(lacking)}", advice)
    if not is_whole(value["quota_gigabytes"], 1, 10**6):
        return (f"has the quota_gigabytes {show(value['quota_gigabytes'])}", "Write a whole number, such as 200.")
    return None


def check_backup_copy(value: t.Any) -> Finding:
    """Does it say which host copies the backups? What else it holds the roles judge."""
    advice = "Write a mapping such as {host: vault2}, with the second host of the group backup."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    finding = _unknown_key(value, _BACKUP_COPY_KEYS)
    if finding:
        return finding
    if not isinstance(value.get("host"), str) or not value["host"]:
        return ("lacks host", advice)
    if "quota_gigabytes" in value and not is_whole(value["quota_gigabytes"], 1, 10**6):
        return (f"has the quota_gigabytes {show(value['quota_gigabytes'])}", "Write a whole number, such as 200, or leave it out.")
    try:
        rules_of(value.get("retention", "15 days"))
    except (TypeError, ValueError):
        told = f"has the retention {show(value['retention'])}"
        return (told, "Write '7 days', '15 days', or all numbers as in civitas_backup, or leave it out.")
    return None


def check_data_volume(value: t.Any) -> Finding:
    """Does it say which disk, without a passphrase? What else it holds the role judges."""
    advice = "Write a mapping such as {device: /dev/disk/by-id/scsi-data, encryption: {by: operator}}."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    if not value.get("device"):
        return ("lacks device", advice)
    unknown = _unknown_key(value, _DATA_VOLUME_KEYS)
    if unknown:
        return unknown
    encryption = value.get("encryption", {})
    if not isinstance(encryption, dict):
        return (f"has an encryption that is {in_words(encryption)} and not a mapping", "Write {by: operator}, or leave it out.")
    if "passphrase" in encryption:
        return (
            "has a passphrase, and the inventory is no place for a secret",
            "Leave it out. It is made in the secrets file, data_volume_passphrase_ and the name of the host.",
        )
    return None


def check_restore_drill(value: t.Any) -> Finding:
    """Does it say whose backups are restored for trial? What else it holds the role judges."""
    advice = "Write a mapping such as {hosts: [records]}, with the names of servers as the inventory has them."
    if not isinstance(value, dict):
        return (f"is {in_words(value)} and not a mapping", advice)
    finding = _unknown_key(value, _DRILL_KEYS)
    if finding:
        return finding
    hosts = value.get("hosts")
    if not isinstance(hosts, list) or not hosts or not all(isinstance(name, str) for name in hosts):
        return ("has no list of hosts", advice)
    twice = sorted({name for name in hosts if hosts.count(name) > 1})
    return (f"has {', '.join(twice)} twice", "Remove the repetition.") if twice else None


def judges_itself(host: Host, hosts: t.Sequence[Host]) -> bool:
    """Is a host judged by itself, and not by one that watches it?"""
    watched = any(MONITORING_GROUP in other.groups for other in hosts)
    return bool(host.values.get("civitas_monitoring_mode", "full" if watched else "light") == "light")


def check_heartbeats(hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Has each host that judges itself a sign of life of its own?"""
    variable = "civitas_heartbeat_secret"
    problems = []
    users: t.Dict[str, t.List[str]] = {}
    for host in hosts:
        watching = host.values.get("civitas_monitoring") if MONITORING_GROUP in host.groups else None
        if isinstance(watching, dict) and isinstance(watching.get("heartbeat_secret"), str):
            users.setdefault(watching["heartbeat_secret"], []).append(f"the monitoring on {host.name}")
        if variable not in host.values or check_secret_name(host.values[variable]):
            continue  # told already
        if judges_itself(host, hosts):
            users.setdefault(host.values[variable], []).append(host.name)
        else:
            remedy = "Remove it here: the monitoring has civitas_monitoring.heartbeat_secret."
            problems.append(Problem(host.name, variable, f"is never used: the group {MONITORING_GROUP} judges this host", remedy))
    for name, of in users.items():
        if len(of) > 1:
            told = f"is {name} for {people(of)}: as long as one of them lives, nobody hears of the end of another"
            remedy = "Write each of them a name of its own, of an address of its own that the service outside gives you."
            problems.append(Problem("inventory", variable, told, remedy))
    return problems


def check_probe_hosts(host: Host, hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Does each probe tell of a host of this inventory?"""
    value = host.values.get("civitas_monitoring")
    if not isinstance(value, dict) or check_monitoring(value):
        return []  # told already
    names = [other.name for other in hosts]
    problems = []
    for probe in value.get("probes", []):
        told_of = probe.get("host")
        if told_of and told_of not in names:
            meant = nearest(str(told_of), names)
            advice = f"Write {meant}." if meant else "Write the name of one, or leave host out: it is the monitoring host's own then."
            said = f"has the probe {show(probe.get('name'))}, whose host is {show(told_of)}, which is no host of this inventory"
            problems.append(Problem(host.name, "civitas_monitoring", said, advice))
    return problems


def check_unwatched(host: Host) -> t.Optional[t.Tuple[str, str, str]]:
    """What a host of a site that nobody watches says of being watched: the variable, what is wrong, what to write."""
    advice = f"Put a host into the group {MONITORING_GROUP}, or remove it."
    if host.values.get("civitas_monitoring_mode") == "full":
        return ("civitas_monitoring_mode", f"is full, and the group {MONITORING_GROUP} has no host that would judge this one", advice)
    if "civitas_monitoring" in host.values:
        return ("civitas_monitoring", f"is written, and the group {MONITORING_GROUP} has no host that would read it", advice)
    return None


def check_directory(value: t.Any) -> Finding:
    """Is it the address of an ACME directory?"""
    advice = f"Write the directory's address as the authority gives it, such as {_ACME_DIRECTORY}"
    finding = check_text(value, advice)
    if finding:
        return finding
    try:
        parts = urlsplit(value)
        sound = bool(parts.hostname) and parts.username is None and (parts.port or 443) > 0
    except ValueError:
        sound, parts = False, urlsplit("")
    if not sound:
        return (f"is {show(value)}: no address", advice)
    if parts.scheme != "https":
        return (f"is {show(value)}: only https proves who answers", advice)
    return None


def check_email(value: t.Any) -> Finding:
    """Is it a mail address?"""
    advice = "Write a mail address that somebody reads, such as certificates@example.org."
    finding = check_text(value, advice)
    if finding:
        return finding
    name, sign, domain = value.rpartition("@")
    if not sign or not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", name) or check_domain(domain.lower()):
        return (f"is {show(value)}: no mail address", advice)
    return None


def site_variables(applications: t.Sequence[str]) -> t.Dict[str, SiteVariable]:
    """The site-wide variables and their rules; C(applications) are those that the collection has roles for."""
    kinds = list(_policy.POLICIES)
    return {
        "civitas_environment": SiteVariable(True, lambda value: check_choice(value, kinds), "production"),
        "civitas_tier": SiteVariable(True, lambda value: check_choice(value, TIERS), "single"),
        "civitas_application": SiteVariable(
            True, lambda value: check_choice(value, applications), applications[0] if applications else "demo"
        ),
        "civitas_domain": SiteVariable(True, check_domain, "records.example.org"),
        "civitas_aliases": SiteVariable(False, check_names, "[www.example.org]"),
        "civitas_public_https_port": SiteVariable(False, check_port, "443"),
        "civitas_timezone": SiteVariable(False, check_timezone, "Etc/UTC"),
        "civitas_secrets_file": SiteVariable(False, check_path, '"{{ inventory_dir }}/secrets.yml"'),
        "civitas_ca_file": SiteVariable(False, check_path, '"{{ inventory_dir }}/ca.pem"'),
        "civitas_certificate_source": SiteVariable(False, lambda value: check_choice(value, CERTIFICATE_SOURCES), "internal"),
        "civitas_certificate_files": SiteVariable(False, check_files, "[certificate/fullchain.pem, certificate/key.pem]"),
        "civitas_certificate_passphrase_secret": SiteVariable(False, check_secret_name, "certificate_passphrase"),
        "civitas_certificate_trust_file": SiteVariable(False, check_path, "certificate/root.pem"),
        "civitas_certificate_fetch_missing": SiteVariable(False, check_switch, "true"),
        "civitas_acme_directory": SiteVariable(False, check_directory, _ACME_DIRECTORY),
        "civitas_acme_email": SiteVariable(False, check_email, "certificates@example.org"),
        "civitas_acme_challenge": SiteVariable(False, lambda value: check_choice(value, ACME_CHALLENGES), "http-01"),
        "civitas_people": SiteVariable(False, check_people, "[{name: first_admin, role: admin, ssh_keys: [ssh-ed25519 AAAA...]}]"),
        "civitas_automation": SiteVariable(True, check_account, "{name: deploy, ssh_keys: [ssh-ed25519 AAAA...], from: [192.0.2.0/24]}"),
        "civitas_break_glass": SiteVariable(False, check_account, "{ssh_keys: [ssh-ed25519 AAAA...], from: [192.0.2.0/24]}"),
        "civitas_announce_smtp": SiteVariable(
            False, check_announce_smtp, "{host: mail.example.org, from: logins@example.org, to: [administrators@example.org]}"
        ),
        "civitas_announce_webhook": SiteVariable(
            False, lambda value: check_webhook(value, "announce_webhook_url"), "{url_secret: announce_webhook_url}"
        ),
        "civitas_mail": SiteVariable(
            False, check_mail, "{host: mail.example.org, sender: registry@example.org, to: [administrators@example.org]}"
        ),
        "civitas_mail_webhook": SiteVariable(
            False, lambda value: check_webhook(value, "mail_webhook_url"), "{url_secret: mail_webhook_url}"
        ),
        "civitas_mail_proof": SiteVariable(False, check_mail_proof, "{selectors: [mail], addresses: [192.0.2.25]}"),
        "civitas_alert_receivers": SiteVariable(False, check_alert_receivers, "[{name: team, email: {to: [administrators@example.org]}}]"),
        "civitas_backup": SiteVariable(False, check_backup, "{recipients: [age1...], quota_gigabytes: 200}"),
        "civitas_backup_copy": SiteVariable(False, check_backup_copy, "{host: vault2}"),
        "civitas_backup_keys_file": SiteVariable(False, check_path, '"{{ inventory_dir }}/backup-keys.txt"'),
        "civitas_contacts": SiteVariable(False, check_contacts, '[{name: Head of registry, does: decides, phone: "+15550100"}]'),
        "civitas_address": SiteVariable(False, check_address, "192.0.2.10"),
        "civitas_monitoring": SiteVariable(False, check_monitoring, "{page_users: [anna], heartbeat_secret: heartbeat_url}"),
        "civitas_monitoring_mode": SiteVariable(False, lambda value: check_choice(value, MONITORING_MODES), "full"),
        "civitas_heartbeat_secret": SiteVariable(False, check_secret_name, "heartbeat_records_url"),
        "civitas_data_volume": SiteVariable(False, check_data_volume, "{device: /dev/disk/by-id/scsi-data, encryption: {by: operator}}"),
        "civitas_restore_drill": SiteVariable(False, check_restore_drill, "{hosts: [records]}"),
        "civitas_second_factor": SiteVariable(False, check_switch, "true"),
        "civitas_admin_networks": SiteVariable(True, check_networks, "[192.0.2.0/24]"),
        "civitas_egress": SiteVariable(False, lambda value: check_choice(value, EGRESS), "restricted"),
        "civitas_bastion": SiteVariable(False, check_host_name, "bastion"),
        "civitas_waivers": SiteVariable(False, _policy.check_waivers, "[]"),
    }


# Variables of hosts.


def check_site_variables(host: Host, variables: t.Mapping[str, SiteVariable]) -> t.List[Problem]:
    """Are the site-wide variables there, and do they hold what they may?"""
    problems = []
    for name, rule in variables.items():
        if name not in host.names:
            if rule.required:
                slip = nearest(name, [other for other in host.names if other not in variables], 0.9)
                problem = "is not set" + (f"; {slip} is: did you mean {name}?" if slip else "")
                problems.append(Problem(host.name, name, problem, f"Write {name}: {rule.example}"))
        elif name in host.values:
            value = host.values[name]
            finding = ("is empty", f"Write {name}: {rule.example}") if value is None else rule.check(value)
            if finding:
                problems.append(Problem(host.name, name, finding[0], finding[1]))
    return problems


def check_unknown_site_names(host: Host, variables: t.Iterable[str]) -> t.List[Problem]:
    """Does nobody read a variable with the prefix of the site-wide ones?"""
    known = sorted(variables)
    problems = []
    for name in sorted(name for name in host.names if name.startswith(PREFIX) and name not in known):
        meant = nearest(name, known)
        problems.append(
            Problem(
                host.name,
                show(name)[1:-1],
                "is no variable of this collection" + (f": did you mean {meant}?" if meant else ""),
                f"Write {meant}." if meant else f"Remove it, or take a name that does not begin with {PREFIX}.",
            )
        )
    return problems


def check_aliases(host: Host) -> t.List[Problem]:
    """Is the domain not an alias of itself?"""
    aliases = host.values.get("civitas_aliases")
    domain = host.values.get("civitas_domain")
    if isinstance(aliases, list) and domain in aliases:
        return [Problem(host.name, "civitas_aliases", f"names civitas_domain itself, {show(domain)}", "Remove it from the aliases.")]
    return []


def check_same_everywhere(hosts: t.Sequence[Host], variables: t.Iterable[str]) -> t.List[Problem]:
    """Has a site-wide variable one value for all hosts? The way in may differ: a bastion is reached from elsewhere than a server."""
    problems = []
    for name in sorted(set(variables) - WAY_IN - OF_A_HOST):
        values: t.Dict[str, t.List[str]] = {}
        for host in hosts:
            # A host that drills is never of the kind whose backups it drills.
            if name in host.values and not (name == "civitas_environment" and DRILL_GROUP in host.groups):
                values.setdefault(show(host.values[name]), []).append(host.name)
        if len(values) > 1:
            told = "; ".join(f"{value} on {people(names)}" for value, names in values.items())
            problems.append(Problem("all hosts", name, f"differs between hosts: {told}", "Set it once, in group_vars/all."))
    return problems


def policy_of(host: Host) -> t.Optional[_policy.Policy]:
    """The rules of the host's environment, or V(None) when it is unknown, which is told as a variable."""
    kind = host.values.get("civitas_environment")
    return _policy.POLICIES.get(kind) if isinstance(kind, str) else None


def check_environment(host: Host, roles: t.Sequence[str]) -> t.List[Problem]:
    """Does the kind of environment allow what would be installed?"""
    policy = policy_of(host)
    if not policy:
        return []
    second_factor = host.values.get("civitas_second_factor", True) is not False
    findings = [
        ("civitas_environment", _policy.check_application(policy, roles)),
        ("civitas_second_factor", _policy.check_second_factor(policy, second_factor)),
    ]
    return [Problem(host.name, variable, *finding) for variable, finding in findings if finding]


# Which variables belong to which source of the certificate, and which of them it cannot do without.
_OF_SOURCE = {
    "delivered": ("files", "passphrase_secret", "trust_file", "fetch_missing"),
    "acme": ("directory", "email", "challenge"),
}
_NEEDED = ("civitas_certificate_files", "civitas_acme_directory", "civitas_acme_email")


def check_certificate_variables(host: Host, variables: t.Mapping[str, SiteVariable]) -> t.List[Problem]:
    """Do the variables of the site's certificate fit its source?"""
    name = "civitas_certificate_source"
    source = host.values.get(name, "internal")
    if (name in host.names and name not in host.values) or source not in CERTIFICATE_SOURCES:
        return []
    problems = []
    for other, parts in _OF_SOURCE.items():
        prefix = "civitas_acme_" if other == "acme" else "civitas_certificate_"
        for variable in (prefix + part for part in parts):
            if other == source and variable in _NEEDED and variable not in host.names:
                remedy = f"Write {variable}: {variables[variable].example}"
                problems.append(Problem(host.name, variable, f"is not set, and {name} is '{source}'", remedy))
            elif other != source and variable in host.names:
                remedy = f"Write {name}: {other}, or remove {variable}."
                problems.append(Problem(host.name, variable, f"is never used: {name} is {source!r}", remedy))
    return problems


def check_hsts(host: str, environment: t.Any, max_age: t.Any) -> t.List[Problem]:
    """Are browsers told to refuse plain HTTP wherever people use the site? Without it, whoever is on their line can read their password."""
    try:
        sent = float(max_age) > 0
    except (TypeError, ValueError):
        return []  # told already, as an option of the role
    if sent or environment == "development":
        return []
    return [
        Problem(
            host,
            "nginx_hsts_max_age",
            f"is {show(max_age)}: browsers would go on to accept plain HTTP, which only the environment development allows",
            "Remove the line for the default of one year.",
        )
    ]


# The inventory.


def check_hosts_exist(hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Is there a host at all?"""
    if hosts:
        return []
    return [Problem("inventory", "all", "has no host", "Name an inventory with hosts, such as -i inventories/production/hosts.yml")]


def is_single_purpose(host: Host) -> bool:
    """Does a host do one thing beside the servers that serve people, such as a bastion?"""
    return bool(set(host.groups) & set(SINGLE_PURPOSE_GROUPS))


def servers_of(groups: t.Mapping[str, t.Sequence[str]]) -> t.List[str]:
    """Return the hosts of an inventory that serve people: those in no group of a single purpose. C(groups) maps groups to hosts."""
    others = {name for group in SINGLE_PURPOSE_GROUPS for name in groups.get(group, ())}
    return [name for name in groups.get("all", ()) if name not in others]


def roles_of(group_roles: t.Mapping[str, t.Sequence[str]], groups: t.Iterable[str], names: t.Container[str]) -> t.List[str]:
    """Return the roles of a host, in their order.

    Args:
        group_roles: the roles of each group. A group of a single purpose has all the roles of its hosts.
        groups: those that the host is in.
        names: of its variables; a role of C(ROLES_OF_VARIABLES) whose variable is not among them is left out.
    """
    member = {"all", *groups}
    single = [group for group in SINGLE_PURPOSE_GROUPS if group in member and group in group_roles]
    chosen = single[:1] or [group for group in group_roles if group not in SINGLE_PURPOSE_GROUPS]
    # An empty name is that of a role which the site does not ask for.
    found = dict.fromkeys(name for group in chosen if group in member for name in group_roles[group] if name)
    return [name for name in found if ROLES_OF_VARIABLES.get(name, "") in names or name not in ROLES_OF_VARIABLES]


def check_variables_of_roles(host: Host, roles: t.Container[str]) -> t.List[Problem]:
    """Has a host that asks for a role by a variable the role? C(roles) are those that it has."""
    return [
        Problem(host.name, variable, f"is never used: a host like this has no role {role}", "Remove it here.")
        for role, variable in ROLES_OF_VARIABLES.items()
        if variable in host.names and role not in roles
    ]


def check_groups(roles: t.Mapping[str, t.Sequence[str]], members: t.Mapping[str, t.Sequence[str]]) -> t.List[Problem]:
    """Has every group on which roles run a host? C(members) maps groups to hosts."""
    return [
        Problem("inventory", group, f"has no host, but {', '.join(names)} would run there", f"Put the server into the group {group}.")
        for group, names in roles.items()
        if group not in ("all", *SINGLE_PURPOSE_GROUPS) and not members.get(group)
    ]


def check_single_purpose(targets: t.Sequence[Host]) -> t.List[Problem]:
    """Is no host in two of the groups whose hosts do one thing?"""
    return [
        Problem(
            host.name,
            "groups",
            f"has {people(sorted(found))}, whose hosts do nothing else",
            "Leave it in one of them, and have another host for the other.",
        )
        for host in targets
        for found in [set(host.groups) & set(SINGLE_PURPOSE_GROUPS)]
        if len(found) > 1
    ]


def check_needed_groups(tier: t.Any, targets: t.Sequence[Host]) -> t.List[Problem]:
    """Are the hosts there that make the tier what it is?"""
    needed = NEEDED_GROUPS.get(tier, {}) if isinstance(tier, str) else {}
    return [
        Problem("inventory", group, f"has no host, and {tier} has one that {does}", f"Put a host into the group {group}, or take single.")
        for group, does in needed.items()
        if targets and not any(group in host.groups for host in targets)
    ]


def check_backup_host(hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Do those who keep backups and what is said of backups go together?"""
    variable = "civitas_backup"
    kept = [host for host in hosts if BACKUP_GROUP in host.groups]
    written = [host for host in hosts if variable in host.names]
    if kept and not written:
        told = "is not set, so nobody could read a backup of this site"
        remedy = (
            "Make keys with age-keygen on machines that are no servers, and write civitas_backup: {recipients: [age1..., age1...], ...}"
        )
        return [Problem("all hosts", variable, told, f"{remedy[:-5]}quota_gigabytes: 200}}.")]
    if written and not kept:
        remedy = f"Put a host into the group {BACKUP_GROUP}, or remove it."
        return [Problem("all hosts", variable, f"is written, and the group {BACKUP_GROUP} has no host that would keep them", remedy)]
    return _check_backup_copy_host(hosts, [host.name for host in kept])


def _check_backup_copy_host(hosts: t.Sequence[Host], kept: t.Sequence[str]) -> t.List[Problem]:
    """Is it clear which of two hosts receives, and which copies? C(kept) are the hosts of the group."""
    variable = "civitas_backup_copy"
    written = [host.values[variable] for host in hosts if variable in host.values]
    if not any(variable in host.names for host in hosts):
        if len(kept) < 2:
            return []
        told = f"has {people(list(kept))}, and nothing says which of them copies what the other one keeps"
        remedy = f"Write {variable}: {{host: {kept[-1]}}}, or leave one host in it."
        return [Problem("inventory", BACKUP_GROUP, told, remedy)]
    if not written or check_backup_copy(written[0]):
        return []  # told already
    name = written[0]["host"]
    if name not in kept:
        other = (
            "which is no host of this inventory"
            if name not in [host.name for host in hosts]
            else "which serves people or does something else"
        )
        remedy = f"Put a host of its own into the group {BACKUP_GROUP}, elsewhere than the first one, and write its name."
        return [Problem("all hosts", variable, f"has the host {show(name)}, {other}", remedy)]
    if len(kept) == 1:
        remedy = f"Put the one that receives into the group {BACKUP_GROUP}. If it is lost, remove {variable}: {name} receives then."
        return [Problem("all hosts", variable, f"has the host {show(name)}, and there is no other one that it could copy", remedy)]
    if len(kept) > 2:
        told = f"has {people(list(kept))}: one receives, one copies, and the others would do nothing"
        return [Problem("inventory", BACKUP_GROUP, told, "Leave two hosts in it.")]
    return []


def check_drills(hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Do hosts that restore backups for trial say whose, and are these servers whose backups somebody keeps?"""
    variable = "civitas_restore_drill"
    servers = [host.name for host in hosts if not is_single_purpose(host)]
    kept = any(BACKUP_GROUP in host.groups for host in hosts)
    problems = []
    for host in hosts:
        value = host.values.get(variable)
        if DRILL_GROUP not in host.groups:
            if variable in host.names:
                told = "is written for a host that does something else, and a key that opens backups must not lie beside what it opens"
                remedy = f"Write it for a host of the group {DRILL_GROUP}, which does nothing else."
                problems.append(Problem(host.name, variable, told, remedy))
        elif not kept:
            told = f"has {host.name}, and the group {BACKUP_GROUP} has no host that would keep backups"
            problems.append(Problem("inventory", DRILL_GROUP, told, f"Put a host into the group {BACKUP_GROUP}, or remove it."))
        elif variable not in host.names:
            remedy = f"Write {variable}: {{hosts: [{', '.join(servers)}]}}"
            problems.append(Problem(host.name, variable, "is not set, so this host would drill nothing", remedy))
        elif isinstance(value, dict) and not check_restore_drill(value):
            for name in (name for name in value["hosts"] if name not in servers):
                meant = nearest(name, servers)
                advice = f"Write {meant}." if meant else f"Write one of {', '.join(servers)}."
                problems.append(Problem(host.name, variable, f"has {show(name)}, which is no server of this inventory", advice))
            drilled = set(value["hosts"]) & set(servers)
            problems += _drilled_here(host, [other for other in hosts if other.name in drilled])
    return problems


def _drilled_here(host: Host, drilled: t.Sequence[Host]) -> t.Iterator[Problem]:
    """Whether the kind of a host lets it restore what others have sent. That a timer may do so there the role judges."""
    here = policy_of(host)
    for other in drilled:
        source = policy_of(other)
        finding = _policy.check_restore(here, source) if here and source and here.periodic_restore else None
        if finding:
            yield Problem(host.name, "civitas_restore_drill", f"has {other.name}: {finding[0]}", finding[1])


def check_single_server(tier: t.Any, targets: t.Sequence[Host]) -> t.List[Problem]:
    """Have the tiers of one server one host, those of a single purpose aside?"""
    servers = [host.name for host in targets if not is_single_purpose(host)]
    if tier not in TIERS or len(servers) == 1 or not targets:
        return []
    if not servers:
        group = next(group for group in SINGLE_PURPOSE_GROUPS if any(group in host.groups for host in targets))
        return [Problem("inventory", group, "has every host of the inventory, so there is no server", "Add the server, in no group.")]
    return [
        Problem(
            "inventory",
            "civitas_tier",
            f"is {tier!r}, one server, but there are {len(servers)}: {people(servers)}",
            f"Leave one host in this inventory. A bastion belongs into the group {BASTION_GROUP}, who watches into {MONITORING_GROUP}, "
            f"who keeps backups into {BACKUP_GROUP}, who restores them for trial into {DRILL_GROUP}.",
        )
    ]


def check_cluster_addresses(hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Do hosts that watch others or keep their backups, and the others, know each other's addresses? A firewall takes no names."""
    if not any({MONITORING_GROUP, BACKUP_GROUP} & set(host.groups) for host in hosts):
        return []
    problems = []
    for host in hosts:
        if "civitas_address" in host.values:
            continue  # judged as a variable
        address = host.values.get("ansible_host", host.name)
        if "ansible_host" in host.names and "ansible_host" not in host.values:
            continue  # told already
        finding = check_address(address)
        if finding:
            told = f"is not set, and ansible_host, which stands in for it, {finding[0]}"
            problems.append(
                Problem(host.name, "civitas_address", told, "Write civitas_address: the address by which the other hosts reach it.")
            )
    return problems


def check_bastion(host: Host, hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Does the way to a host lead through a bastion of this inventory?"""
    name = host.values.get("civitas_bastion")
    if not isinstance(name, str) or not name or check_host_name(name):
        return []
    bastion = next((other for other in hosts if other.name == name), None)
    if bastion is None:
        meant = nearest(name, [other.name for other in hosts])
        advice = f"Did you mean {meant}? " if meant else ""
        return [Problem(host.name, "civitas_bastion", f"is {show(name)}, which is no host of this inventory", f"{advice}Add the bastion.")]
    if BASTION_GROUP not in bastion.groups:
        remedy = f"Put {name} into the group {BASTION_GROUP}; it lets people through then and does nothing else."
        return [Problem(host.name, "civitas_bastion", f"is {show(name)}, which is a server like any other", remedy)]
    return []


def check_addresses(hosts: t.Sequence[Host]) -> t.List[Problem]:
    """Is every machine in the inventory once?"""
    seen: t.Dict[t.Tuple[str, str], t.List[str]] = {}
    for host in hosts:
        if "ansible_host" in host.names and "ansible_host" not in host.values:
            continue
        address = str(host.values.get("ansible_host") or host.name).lower()
        seen.setdefault((address, str(host.values.get("ansible_port") or 22)), []).append(host.name)
    return [
        Problem(
            people(names),
            "ansible_host",
            f"is the same machine under {len(names)} names, {show(address)} port {port}",
            "Give each host its own address, or remove the repetition.",
        )
        for (address, port), names in seen.items()
        if len(names) > 1
    ]


def check_control_node(host: Host) -> t.List[Problem]:
    """Is the server another machine than this one?"""
    remedy = "Run Ansible from another machine, and write the server's name or address as ansible_host."
    reason = "whoever holds the control node holds the vault password, so it is kept apart from the server"
    connection = str(host.values.get("ansible_connection") or "ssh")
    if connection.rsplit(".", 1)[-1] == "local":
        return [Problem(host.name, "ansible_connection", f"is 'local', this machine: {reason}", remedy)]
    address = str(host.values.get("ansible_host") or host.name).lower()
    port = str(host.values.get("ansible_port") or 22)
    # Another port of the loopback interface leads elsewhere: a container, a virtual machine, a tunnel.
    if connection.rsplit(".", 1)[-1] in ("ssh", "smart", "paramiko", "paramiko_ssh") and port == "22" and _is_loopback(address):
        return [Problem(host.name, "ansible_host", f"is {show(address)}, this machine: {reason}", remedy)]
    return []


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost" or address.endswith(".localhost")


def check_inventory_sources(sources: t.Iterable[str], secrets_path: str, ignored: t.Sequence[str] = ()) -> t.List[Problem]:
    """Will Ansible not take the secrets file for an inventory? It reads every file of a directory that is given with -i."""
    directory, name = os.path.split(os.path.realpath(secrets_path))
    if name.startswith(".") or any(re.search(pattern, name) for pattern in ignored):
        return []
    for source in sources:
        if os.path.isdir(source) and os.path.realpath(source) == directory:
            return [
                Problem(
                    "inventory",
                    "civitas_secrets_file",
                    f"is in {source}, and Ansible reads each file of a directory of inventories as an inventory",
                    f"Name the file and not the directory, such as -i {os.path.join(source, 'hosts.yml')}",
                )
            ]
    return []


def check_password_files(paths: t.Iterable[str]) -> t.List[Problem]:
    """Can only its owner read the vault password? C(paths) are files that hold it plainly."""
    problems = []
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o077:
            problems.append(
                Problem(
                    "controller",
                    "vault password",
                    f"lies in {path}, which others can read (mode {stat.S_IMODE(mode):04o})",
                    f"Run chmod 600 {path}",
                )
            )
    return problems


def check_artifact(host: str, name: str, path: t.Any, sha256: t.Any) -> t.List[Problem]:
    """Is a file that a role brings to the host on this machine, and is it the one that was meant? C(name) is the variable that names it."""
    finding = _artifact_file(path) or _artifact_sum(path, sha256)
    return [Problem(host, name, *finding)] if finding else []


def _artifact_file(path: t.Any) -> Finding:
    advice = "Put the file there, or correct the path."
    finding = check_text(path, "Write the path of a file on this machine.")
    if finding:
        return finding
    shown = path if len(path) <= 300 else show(path)
    if not os.path.isabs(path):
        written = '"{{ inventory_dir }}/' + os.path.basename(path) + '"'
        return (f"is {shown}, and it is not known where such a path begins", f"Write it from the root, such as {written}")
    if not os.path.exists(path):
        return (f"is {shown}: there is no such file on this machine", advice)
    if not os.path.isfile(path):
        return (f"is {shown}: not a file", advice)
    if not os.access(path, os.R_OK):
        return (f"is {shown}: you may not read this file", f"Run chmod u+r {path} as its owner.")
    return None


def _artifact_sum(path: str, sha256: t.Any) -> Finding:
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        told = f"the checksum {show(sha256)}, which is no sha256" if sha256 else "no checksum"
        return (f"is {path} with {told}", f"Write the 64 digits that 'sha256sum {path}' prints as its sha256, if you trust this file.")
    try:
        actual = sha256_of(path)
    except OSError as error:
        return (f"is {path}, which cannot be read: {error.strerror}", "Put a whole copy there.")
    if actual != sha256:
        return (
            f"is {path} with the sha256 {actual}, and {sha256} was expected: it is damaged or another file",
            "Fetch it again, or correct its sha256.",
        )
    return None


def check_ports(host: str, ports: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Problem]:
    """Does every port of a host belong to one role?"""
    problems = []
    for index, one in enumerate(ports):
        for other in ports[index + 1 :]:
            same = (one["port"], one["protocol"]) == (other["port"], other["protocol"])
            if same and _overlap(one["addresses"], other["addresses"]):
                problems.append(
                    Problem(
                        host,
                        f"port {one['port']}/{one['protocol']}",
                        f"is declared by {one['role']} ({one['name']}) and by {other['role']} ({other['name']}) on the same address",
                        f"Change the port of one of them; see the variables of the roles {one['role']} and {other['role']}.",
                    )
                )
    return problems


def _overlap(one: t.Iterable[str], other: t.Iterable[str]) -> bool:
    return any(_same_address(first, second) for first in map(_address, one) for second in map(_address, other))


def _address(value: str) -> str:
    text = str(value).strip("[]").lower()
    if text in ("", "*"):
        return "::"
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _same_address(one: str, other: str) -> bool:
    # A socket on :: takes IPv4 as well.
    if one == other or "::" in (one, other):
        return True
    return "0.0.0.0" in (one, other) and ":" not in one + other


# The report.


def people(names: t.Sequence[str]) -> str:
    """Names in a sentence, five at most."""
    told = list(names[:5]) + ([f"{len(names) - 5} more"] if len(names) > 5 else [])
    return ", ".join(told)


def merge(problems: t.Sequence[Problem], hosts: t.Sequence[str]) -> t.List[Problem]:
    """Tell the same problem of several hosts once; order is kept."""
    found: t.Dict[t.Tuple[str, str, str, str], t.List[str]] = {}
    for item in problems:
        where = found.setdefault((item.variable, item.problem, item.remedy, item.source), [])
        if item.where not in where:
            where.append(item.where)
    return [
        Problem("all hosts" if len(where) > 1 and set(hosts) <= set(where) else people(where), variable, problem, remedy, source)
        for (variable, problem, remedy, source), where in found.items()
    ]


def report(problems: t.Sequence[Problem]) -> str:
    """The problems as numbered paragraphs."""
    count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    lines = [f"The inventory has {count}. No host was contacted, nothing was changed."]
    for number, item in enumerate(problems, 1):
        source = f"  ({item.source})" if item.source else ""
        lines += ["", f"{number:2}. {item.where}: {item.variable}{source}", f"    {item.problem}", f"    -> {item.remedy}"]
    return "\n".join(lines)
