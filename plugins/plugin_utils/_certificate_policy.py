# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an environment and a product ask of a site's certificate, beyond that it is a good one. Runs on the controller.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import typing as t
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils import _policy
from ansible_collections.civitas.hosting.plugins.module_utils._policy import Policy, Waiver
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, problem

# How many days a certificate for web servers may last. Browsers hold authorities that they know to the first, and Apple's systems hold
# those that people added to the second.
PUBLIC_LIFETIME_DAYS = 398
PRIVATE_LIFETIME_DAYS = 825
# Public authorities are bound to shorter lives from these days on (CA/Browser Forum, ballot SC-081); the day of issue counts.
SCHEDULE = ((datetime.date(2029, 3, 15), 47), (datetime.date(2027, 3, 15), 100), (datetime.date(2026, 3, 15), 200))
# Other curves are slow or refused by browsers; no browser takes Ed25519 in a certificate.
CURVES = ("secp256r1", "secp384r1")
RSA_BITS = 2048

_WAIVED_BY = {f"policy_{rule}": rule for rule in _policy.WAIVABLE_OF_CERTIFICATES}
_VENDOR = "primero.org"


def is_lets_encrypt(directory: str) -> bool:
    """Is this ACME directory, by its address, one of Let's Encrypt?"""
    host = (urlsplit(directory).hostname or "").rstrip(".")
    return host == "letsencrypt.org" or host.endswith(".letsencrypt.org")


def names_to_serve(application: t.Any, domain: str, aliases: t.Sequence[str]) -> t.List[str]:
    """The names that a site's certificate must hold for browsers.

    With a product that needs C(*.domain) the domain itself is advised only, and the wildcard is judged by the policy, which can say why.
    """
    return list(aliases) if _policy.product_of(application).wildcard else [domain, *aliases]


def check_source_policy(policy: Policy, source: str, directory: str = "") -> t.List[Problem]:
    """What the environment has against a source (V(internal), V(delivered), V(acme)), before there is a certificate.

    Args:
        policy: the rules of the environment.
        source: where the site's certificate comes from.
        directory: the ACME directory's address.
    """
    issuer = "internal" if source == "internal" else "lets_encrypt" if source == "acme" and is_lets_encrypt(directory) else "other"
    return _refusal(policy, _policy.check_public_certificate(policy, issuer), "")


def check_certificate_policy(
    policy: Policy,
    product: t.Any,
    info: t.Mapping[str, t.Any],
    domain: str,
    names: t.Sequence[str] = (),
    at: t.Optional[datetime.datetime] = None,
    private: bool = False,
    internal: bool = False,
) -> t.List[Problem]:
    """What the environment and the product have against a certificate that is handed in.

    Args:
        policy: the rules of the environment.
        product: C(civitas_application).
        info: the certificate as C(describe) tells of it; its C(chain) is looked at where it is there.
        domain: C(civitas_domain).
        names: further names of the site.
        at: the time it is judged at, aware of its time zone; now unless given.
        private: it ends at a root that the site names itself and browsers do not know.
        internal: it ends at the root of the installation's own CA, whatever way it came.
    """
    issuer = "internal" if internal else "lets_encrypt" if _by_lets_encrypt(info) else "other"
    found = _vendor(info, [domain, *names])
    wanted = f"*.{domain}" if _policy.product_of(product).wildcard else ""
    found += _wildcard_needed(info, wanted, domain)
    found += _refusal(policy, _policy.check_public_certificate(policy, issuer), _title(info))
    others = [name for name in _wildcards(info) if name != wanted]
    if others and _policy.check_public_certificate(policy, "other", wildcard=True):
        found.append(problem("policy_wildcard", f"It holds {_few(others)}, and '{policy.kind}' takes no wildcard.", _title(info)))
    found += _days_left(policy, info, at or datetime.datetime.now(datetime.timezone.utc))
    found += _lifetime(info, PRIVATE_LIFETIME_DAYS if private else PUBLIC_LIFETIME_DAYS)
    found += _key_type(info)
    return found


def certificate_advice(product: t.Any, info: t.Mapping[str, t.Any], domain: str, private: bool = False) -> t.List[str]:
    """What is allowed and still not good, one sentence each; arguments as in C(check_certificate_policy)."""
    advice = []
    if _policy.product_of(product).wildcard and domain not in _names(info):
        advice.append(f"The certificate does not hold {domain} itself beside *.{domain}; order the next one with both.")
    begin, end = _time(info["not_before"]), _time(info["not_after"])
    limit = next((days for day, days in SCHEDULE if begin.date() >= day), PUBLIC_LIFETIME_DAYS)
    if not private and end - begin > datetime.timedelta(days=limit):
        advice.append(
            f"The certificate lasts {(end - begin).days} days, but an authority that browsers know may give {limit} since its day of "
            f"issue, {begin.date().isoformat()}; browsers may refuse it. Ask the issuer for one of at most {limit} days."
        )
    if info.get("must_staple"):
        advice.append(
            "The certificate demands OCSP stapling (must-staple), so browsers refuse it unless nginx_ocsp_resolvers is set. Many "
            "authorities have ended that service; order the next one without."
        )
    return advice


def waive(problems: t.Sequence[Problem], waivers: t.Sequence[Waiver]) -> t.Tuple[t.List[Problem], t.List[Problem]]:
    """Split C(problems) into those that stand and those that a waiver sets aside."""
    rules = {waiver.rule for waiver in waivers}
    stand = [found for found in problems if _WAIVED_BY.get(found.code) not in rules]
    return stand, [found for found in problems if found not in stand]


def _refusal(policy: Policy, rule: t.Optional[str], certificate: str) -> t.List[Problem]:
    if rule is None:
        return []
    messages = {
        "internal_ca": f"People's browsers do not trust the internal CA, and '{policy.kind}' ({policy.purpose}) may not ask them to.",
        "lets_encrypt": f"'{policy.kind}' ({policy.purpose}) does not take certificates of Let's Encrypt.",
    }
    return [problem(f"policy_{rule}", messages[rule], certificate)]


def _vendor(info: t.Mapping[str, t.Any], names: t.Sequence[str]) -> t.List[Problem]:
    held = [name for name in dict.fromkeys([*_names(info), *names]) if name == _VENDOR or name.endswith(f".{_VENDOR}")]
    told = f"{_few(held)} {'is' if len(held) == 1 else 'are'} below {_VENDOR}, the domain of the product's vendor."
    return [problem("policy_vendor_domain", told, _title(info))] if held else []


def _wildcard_needed(info: t.Mapping[str, t.Any], wanted: str, domain: str) -> t.List[Problem]:
    names = _names(info)
    if not wanted or wanted in names:
        return []
    below = [name for name in names if name.endswith(f".{domain}")]
    lists = f"It lists {_few(below)} in place of {wanted}" if below else f"It does not hold {wanted}"
    told = f"{lists}; every user gets a name of their own below {domain}, and nobody can list those beforehand."
    return [problem("policy_wildcard_needed", told, _title(info))]


def _days_left(policy: Policy, info: t.Mapping[str, t.Any], at: datetime.datetime) -> t.List[Problem]:
    end, wanted = _time(info["not_after"]), policy.minimum_days_left
    # One that has ended is refused for that.
    if end - at >= datetime.timedelta(days=wanted) or end < at:
        return []
    told = f"It ends on {end:%Y-%m-%d}, in {(end - at).days} days; '{policy.kind}' takes one that lasts {wanted} days or more."
    return [problem("policy_days_left", told, _title(info))]


def _lifetime(info: t.Mapping[str, t.Any], limit: int) -> t.List[Problem]:
    lifetime = _time(info["not_after"]) - _time(info["not_before"])
    # A last second that counts as whole is no day more.
    if lifetime <= datetime.timedelta(days=limit, seconds=1):
        return []
    told = f"It is valid for {lifetime.days} days from its first to its last; browsers refuse more than {limit}."
    return [problem("policy_lifetime", told, _title(info))]


def _key_type(info: t.Mapping[str, t.Any]) -> t.List[Problem]:
    kind, bits, curve = str(info.get("key_type")), info.get("key_bits"), str(info.get("curve") or "")
    if (kind == "rsa" and isinstance(bits, int) and bits >= RSA_BITS) or (kind == "ec" and curve in CURVES):
        return []
    told = f"{kind} with {bits} bits" if kind == "rsa" else f"{kind} {curve}".strip()
    return [problem("policy_key_type", f"Its key is {told}, which not all browsers take.", _title(info))]


def _by_lets_encrypt(info: t.Mapping[str, t.Any]) -> bool:
    issuers = [str(item.get("issuer", "")) for item in [info, *info.get("chain", [])]]
    return any("let's encrypt" in issuer.lower() for issuer in issuers)


def _names(info: t.Mapping[str, t.Any]) -> t.List[str]:
    return [str(name).lower() for name in info.get("names", [])]


def _wildcards(info: t.Mapping[str, t.Any]) -> t.List[str]:
    return [name for name in _names(info) if name.startswith("*.")]


def _title(info: t.Mapping[str, t.Any]) -> str:
    return f"leaf {info['subject']}, serial {info['serial']}" if info.get("subject") is not None else ""


def _few(names: t.Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _time(text: str) -> datetime.datetime:
    """An ISO time in UTC; Python before 3.11 does not know the Z."""
    moment = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)
