# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each kind of environment may and must: the rules as data, and the questions that are asked of them.

Private to the collection: no promise of stability. Every C(check_...) returns V(None) when it is allowed, else C((problem, remedy)).
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

Finding = t.Optional[t.Tuple[str, str]]

# A waiver is a bridge and not a road.
MAX_WAIVER_DAYS = 90
# Long enough to reach everybody, and no habit.
MAX_GRACE_DAYS = 31


@dataclasses.dataclass(frozen=True)
class Policy:
    """The rules of one kind of environment."""

    kind: str
    purpose: str
    # Readable data of living people. The kind `backup` stores them encrypted and has no key.
    may_hold_personal_data: bool
    # Kinds whose backups may be restored here as they are.
    restore_from: t.Tuple[str, ...]
    # A restore of the newest backup by the clock proves the backups.
    periodic_restore: bool
    may_reset_data: bool
    # The application accepts a code that everybody knows in place of the one it sends.
    fixed_test_codes: bool
    # People need a second factor to log in to the hosts.
    second_factor_required: bool
    # What people's browsers see.
    public_internal_ca: bool
    public_lets_encrypt: bool
    public_wildcard: bool
    # A certificate that is handed in lasts at least so long.
    minimum_days_left: int
    # Standing accounts of the product's vendor.
    vendor_access: bool
    application_installed: bool


POLICIES: t.Dict[str, Policy] = {
    policy.kind: policy
    for policy in (
        Policy(
            kind="production",
            purpose="live personal data",
            may_hold_personal_data=True,
            restore_from=("production",),
            periodic_restore=False,
            may_reset_data=False,
            fixed_test_codes=False,
            second_factor_required=True,
            public_internal_ca=False,
            public_lets_encrypt=False,
            public_wildcard=False,
            minimum_days_left=30,
            vendor_access=False,
            application_installed=True,
        ),
        Policy(
            kind="staging",
            purpose="a mirror of production, restored from its backups every day",
            may_hold_personal_data=True,
            restore_from=("production", "staging"),
            periodic_restore=True,
            may_reset_data=True,
            fixed_test_codes=False,
            second_factor_required=True,
            public_internal_ca=False,
            public_lets_encrypt=True,
            public_wildcard=True,
            minimum_days_left=14,
            vendor_access=False,
            application_installed=True,
        ),
        Policy(
            kind="qa",
            purpose="tests and demonstrations with invented data",
            may_hold_personal_data=False,
            restore_from=("qa", "development"),
            periodic_restore=False,
            may_reset_data=True,
            fixed_test_codes=True,
            second_factor_required=True,
            public_internal_ca=True,
            public_lets_encrypt=True,
            public_wildcard=True,
            minimum_days_left=7,
            vendor_access=True,
            application_installed=True,
        ),
        Policy(
            kind="backup",
            purpose="stores encrypted backups and nothing else",
            may_hold_personal_data=False,
            restore_from=(),
            periodic_restore=False,
            may_reset_data=False,
            fixed_test_codes=False,
            second_factor_required=True,
            public_internal_ca=False,
            public_lets_encrypt=False,
            public_wildcard=False,
            minimum_days_left=30,
            vendor_access=False,
            application_installed=False,
        ),
        Policy(
            kind="bastion",
            purpose="the way in for administrators and nothing else",
            may_hold_personal_data=False,
            restore_from=(),
            periodic_restore=False,
            may_reset_data=False,
            fixed_test_codes=False,
            second_factor_required=True,
            public_internal_ca=False,
            public_lets_encrypt=False,
            public_wildcard=False,
            minimum_days_left=30,
            vendor_access=False,
            application_installed=False,
        ),
        Policy(
            kind="development",
            purpose="a developer's machine or a demonstration, never for real people",
            may_hold_personal_data=False,
            restore_from=("development", "qa"),
            periodic_restore=False,
            may_reset_data=True,
            fixed_test_codes=True,
            second_factor_required=False,
            public_internal_ca=True,
            public_lets_encrypt=True,
            public_wildcard=True,
            minimum_days_left=1,
            vendor_access=True,
            application_installed=True,
        ),
    )
}


def _kinds(attribute: str) -> str:
    return ", ".join(kind for kind, policy in POLICIES.items() if getattr(policy, attribute))


def check_application(policy: Policy, roles: t.Iterable[str]) -> Finding:
    """May these C(roles) run here? Roles of applications begin with C(app_)."""
    applications = sorted(role for role in roles if role.rsplit(".", 1)[-1].startswith("app_"))
    if policy.application_installed or not applications:
        return None
    return (
        f"is '{policy.kind}' ({policy.purpose}), but {', '.join(applications)} would be installed",
        f"Write one of {_kinds('application_installed')}, or take a tier without an application.",
    )


def check_restore(target: Policy, source: Policy, anonymized: bool = False) -> Finding:
    """May a backup of C(source) be restored into C(target)?"""
    if source.kind in target.restore_from:
        return None
    if anonymized and target.application_installed and not target.may_hold_personal_data:
        return None
    if not target.restore_from:
        return (f"nothing is ever restored into '{target.kind}' ({target.purpose})", "Restore into staging.")
    if source.may_hold_personal_data and not target.may_hold_personal_data:
        return (f"'{source.kind}' holds personal data and '{target.kind}' may not", "Restore into staging, or restore an anonymized set.")
    return (f"'{target.kind}' is never restored from '{source.kind}'", f"Take a backup of {', '.join(target.restore_from)}.")


def check_reset(policy: Policy) -> Finding:
    """May all data here be deleted on request?"""
    if policy.may_reset_data:
        return None
    return (f"the data of '{policy.kind}' ({policy.purpose}) are never reset", f"Reset only {_kinds('may_reset_data')}.")


def check_fixed_codes(policy: Policy, enabled: bool) -> Finding:
    """May the application accept test codes that everybody knows?"""
    if policy.fixed_test_codes or not enabled:
        return None
    return (
        f"fixed test codes would open '{policy.kind}' to everybody",
        f"Switch them off; only {_kinds('fixed_test_codes')} may have them.",
    )


def check_second_factor(policy: Policy, enabled: bool) -> Finding:
    """Is the second factor of people who log in as it must be?"""
    if enabled or not policy.second_factor_required:
        return None
    return (f"'{policy.kind}' needs a second factor for every login", "Switch it on.")


class WayIn(t.NamedTuple):
    """What a site sets aside of the way in.

    Args:
        without_code: people who need no second factor.
        grace_until: last day on which people without a secret get in with the key alone, as text; empty for none.
        automation_anywhere: whether the automation's key works from every address.
        root_automation: whether the automation is root.
    """

    without_code: t.Sequence[str]
    grace_until: str
    automation_anywhere: bool
    root_automation: bool


def check_way_in(
    policy: Policy, way_in: WayIn, waived: t.Collection[str], today: t.Optional[datetime.date] = None
) -> t.Tuple[t.List[t.Tuple[str, str, str]], t.Set[str]]:
    """What of it the environment does not allow, as C((variable, problem, remedy)), and which of the C(waived) rules were needed."""
    if not policy.second_factor_required:
        return [], set()
    today = today or datetime.date.today()
    last = today + datetime.timedelta(days=MAX_GRACE_DAYS)
    asked = [
        ("second_factor", "civitas_people", bool(way_in.without_code), f"lets in {', '.join(way_in.without_code)} without a code"),
        ("automation_anywhere", "access_automation_anywhere", way_in.automation_anywhere, "lets the automation's key work from everywhere"),
        ("root_automation", "access_permit_root_automation", way_in.root_automation, "lets the automation in as root"),
    ]
    findings = [
        (variable, f"{problem}, which '{policy.kind}' does not allow", f"Take it out, or waive {rule} for a while in civitas_waivers.")
        for rule, variable, is_asked, problem in asked
        if is_asked and rule not in waived
    ]
    if way_in.grace_until:
        try:
            too_long = _day(way_in.grace_until) > last
        except ValueError:
            too_long = True
        if too_long:
            problem = f"would let people in without a code for more than {MAX_GRACE_DAYS} days"
            findings.append(("access_second_factor_grace_until", problem, f'Write a day up to {last.isoformat()}, as "YYYY-MM-DD".'))
    return findings, {rule for rule, _variable, is_asked, _problem in asked if is_asked and rule in waived}


def check_mail(policy: Policy, has_webhook: bool, waived: t.Collection[str]) -> Finding:
    """Would somebody hear that mail does not leave, which mail cannot tell?"""
    if not policy.may_hold_personal_data or has_webhook or "mail_webhook" in waived:
        return None
    return (
        f"is set without another way to tell that mail does not leave, which '{policy.kind}' needs: alarms would be lost unseen",
        "Write civitas_mail_webhook or civitas_announce_webhook, or waive mail_webhook for a while in civitas_waivers.",
    )


def check_alarms(policy: Policy, ways: t.Collection[str], waived: t.Collection[str]) -> Finding:
    """Would a critical alarm reach somebody, also when mail does not leave? C(ways) are those by which people hear of critical alarms."""
    if not policy.may_hold_personal_data:
        return None
    if not ways and "alarms" not in waived:
        return (
            f"names nobody, and '{policy.kind}' must not fail unseen",
            "Write civitas_mail with a webhook, or civitas_alert_receivers, or waive alarms for a while in civitas_waivers.",
        )
    if ways and not set(ways) - {"email"} and "second_channel" not in waived:
        return (
            f"has mail only for what is critical, and '{policy.kind}' needs a second way: mail cannot tell that it does not leave",
            "Write a webhook or sms that hears of critical alarms, or waive second_channel for a while in civitas_waivers.",
        )
    return None


def check_vendor_access(policy: Policy, accounts: t.Iterable[str]) -> Finding:
    """May these standing C(accounts) of the vendor exist here?"""
    names = sorted(accounts)
    if policy.vendor_access or not names:
        return None
    return (
        f"the vendor has standing access to '{policy.kind}': {', '.join(names)}",
        "Remove the accounts; give access for a time when it is needed.",
    )


def check_public_certificate(policy: Policy, issuer: str, wildcard: bool = False, wildcard_mandatory: bool = False) -> t.Optional[str]:
    """Which rule for what people's browsers see does this certificate break: a key of V(WAIVABLE_OF_CERTIFICATES), or V(None)?

    Args:
        policy: the rules of the environment.
        issuer: V(internal), V(lets_encrypt) or V(other).
        wildcard: whether it holds a C(*.) name.
        wildcard_mandatory: the product cannot do without (one name per user).
    """
    if issuer == "internal" and not policy.public_internal_ca:
        return "internal_ca"
    if issuer == "lets_encrypt" and not policy.public_lets_encrypt:
        return "lets_encrypt"
    if wildcard and not wildcard_mandatory and not policy.public_wildcard:
        return "wildcard"
    return None


# Products.


@dataclasses.dataclass(frozen=True)
class Product:
    """What an application asks of the site's certificate."""

    # One name per user below the domain, so only C(*.domain) will do.
    wildcard: bool = False


PRODUCTS: t.Dict[str, Product] = {"pryv": Product(wildcard=True)}


def product_of(application: t.Any) -> Product:
    """The needs of the application C(civitas_application); most need nothing of their own."""
    return PRODUCTS.get(application, Product()) if isinstance(application, str) else Product()


# Waivers.

# Which rules a site may set aside for a while, and what that means. No waiver makes browsers take what they refuse.
WAIVABLE_OF_CERTIFICATES: t.Dict[str, str] = {
    "internal_ca": "people's browsers warn until they trust the internal CA",
    "lets_encrypt": "the certificate names no organization, and whoever controls the name for a minute gets one",
    "wildcard": "one stolen key impersonates every name below the domain",
    "lifetime": "browsers may refuse a certificate that lasts so long",
    "days_left": "the certificate has to be replaced again soon",
}
WAIVABLE_OF_THE_WAY_IN: t.Dict[str, str] = {
    "second_factor": "a stolen key alone opens the servers",
    "automation_anywhere": "a stolen key of the automation opens the servers from everywhere",
    "root_automation": "nobody can tell what the automation did from what root did",
}
WAIVABLE_OF_ALARMS: t.Dict[str, str] = {
    "mail_webhook": "when mail does not leave, nobody is told",
    "alarms": "nobody hears that something fails",
    "second_channel": "when mail does not leave, no alarm arrives",
}
WAIVABLE: t.Dict[str, str] = {**WAIVABLE_OF_CERTIFICATES, **WAIVABLE_OF_THE_WAY_IN, **WAIVABLE_OF_ALARMS}


class Waiver(t.NamedTuple):
    """A rule that is set aside, why, and up to which day."""

    rule: str
    reason: str
    until: datetime.date

    def days_left(self, today: datetime.date) -> int:
        return (self.until - today).days


def check_waivers(value: t.Any, today: t.Optional[datetime.date] = None) -> Finding:
    """Is it a list of C({rule, reason, until}), each a known rule once, with a reason and a day that is neither past nor far off?"""
    today = today or datetime.date.today()
    advice = (
        "Write a list such as [{rule: internal_ca, reason: The certificate has been ordered, "
        f'until: "{(today + datetime.timedelta(days=30)).isoformat()}"}}].'
    )
    if not isinstance(value, list):
        return ("is no list", advice)
    findings = [_check_waiver(item, today, advice) for item in value]
    rules = [item.get("rule") for item in value if isinstance(item, dict)]
    findings += [(f"waives {rule} {rules.count(rule)} times", "Keep one of them.") for rule in WAIVABLE if rules.count(rule) > 1]
    found = [finding for finding in findings if finding]
    # Several of a long list would bury the first.
    return ("; ".join(text for text, _remedy in found[:3]), found[0][1]) if found else None


def _check_waiver(item: t.Any, today: datetime.date, advice: str) -> Finding:
    if not isinstance(item, dict) or set(item) != set(Waiver._fields):
        return ("has an item without exactly rule, reason and until", advice)
    rule, reason = item["rule"], item["reason"]
    if not isinstance(rule, str) or rule not in WAIVABLE:
        told = repr(rule)[:40] if isinstance(rule, str) else "something"
        return (f"names {told}, which is no rule that can be waived", f"Write one of {', '.join(WAIVABLE)}.")
    if not isinstance(reason, str) or not 10 <= len(reason.strip()) <= 500 or len(reason.split()) < 2 or not reason.isprintable():
        return (f"waives {rule} without a reason", f"Write a sentence of why {rule} is waived, as reason: ... (10 to 500 characters).")
    finding = check_day(item["until"], today)
    return (f"waives {rule} with a last day that {finding[0]}", finding[1]) if finding else None


def waivers_of(value: t.Any, today: t.Optional[datetime.date] = None) -> t.List[Waiver]:
    """The waivers in C(civitas_waivers) that hold; C(check_waivers) tells what is wrong with the others."""
    today = today or datetime.date.today()
    items = [item for item in value if _check_waiver(item, today, "") is None] if isinstance(value, list) else []
    return [Waiver(str(item["rule"]), str(item["reason"]).strip(), _day(item["until"])) for item in items]


def check_day(value: t.Any, today: t.Optional[datetime.date] = None) -> Finding:
    """Is C(value) a waiver's last day: a date, today or later, at most 90 days ahead?"""
    today = today or datetime.date.today()
    advice = f'Write a day up to {(today + datetime.timedelta(days=MAX_WAIVER_DAYS)).isoformat()}, as until: "YYYY-MM-DD".'
    if isinstance(value, datetime.datetime):
        return ("holds a time and not a day", advice)
    try:
        day = _day(value)
    except ValueError:
        return ("is no date", advice)
    if day < today:
        return (f"passed on {day.isoformat()}", f"Correct what was waived and remove the waiver. If it has to last longer: {advice}")
    if day > today + datetime.timedelta(days=MAX_WAIVER_DAYS):
        return (f"is more than {MAX_WAIVER_DAYS} days ahead", advice)
    return None


def _day(value: t.Any) -> datetime.date:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return datetime.date(value.year, value.month, value.day)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("no date")
    return datetime.date.fromisoformat(value)
