# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of the module firewall_rules: judge, compare, check, arm the revert, replace.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _firewall_host as host
from ansible_collections.civitas.hosting.plugins.module_utils import _firewall_live as live
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import egress_rules
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_model import Model, model, problems
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_rules import Features, closed_ruleset, ruleset

# A statement that only this feature needs; asked when the kernel refuses the whole.
_FEATURES = {"log": 'log prefix "civitas-firewall"', "reject": "meta l4proto tcp reject with tcp reset"}


class FirewallRefused(Exception):
    """Nothing was changed; the text says why, and what to write."""


class Outcome(t.NamedTuple):
    changed: bool
    drift: str
    revert_pending: bool
    warnings: t.List[str]
    diff: t.Dict[str, str]


def run(params: t.Mapping[str, t.Any], check_mode: bool) -> Outcome:
    """Put the rules in force. With C(check_mode) only say what would be changed."""
    config = {**params, "egress": {**params["egress"], "container_interfaces": params["container_interfaces"]}}
    _refuse(problems(config))
    connection = host.ssh_connection()
    wanted, warnings = host.both_ports(model(config), connection)
    others = host.other_firewalls()
    found = [*host.connection_problems(wanted, connection), *host.interface_problems(wanted), *host.bridge_problems(wanted)]
    _refuse([*found, *(others if params["other_firewalls"] == "refuse" else [])])
    try:
        return _put_in_force(wanted, params, [*warnings, *others], check_mode)
    except (live.FirewallError, _revert.RevertError, OSError) as error:
        raise FirewallRefused(str(error)) from error


def _refuse(found: t.Sequence[str]) -> None:
    if found:
        raise FirewallRefused("\n".join(["the firewall was left as it was:", *(f"- {problem}" for problem in found)]))


def _put_in_force(wanted: Model, params: t.Mapping[str, t.Any], warnings: t.Sequence[str], check_mode: bool) -> Outcome:
    # On a fresh host the packages may be missing, or a user that the rules name: nft could not judge what it will be given.
    if check_mode and not os.path.exists(live.RULES):
        return Outcome(True, "", False, list(warnings), {"before": "", "after": _texts(wanted, params, Features())[0]})
    with live.locked():
        text, closed, missing = _accepted(wanted, params)
        before = live.read(live.RULES)
        same = (before, live.read(live.CLOSED)) == (text, closed)
        drift = live.drift(before) if before else ""
        changed = not same or bool(drift)
        if changed and not check_mode:
            # The way back from rules that were proven once, and that others took away, would be to no rules.
            if not same:
                arm(params["revert_seconds"])
            live.load(text)
            live.write(live.CLOSED, closed)
            live.write(live.RULES, text)
    return Outcome(
        changed,
        drift,
        _revert.pending() is not None,
        [*warnings, *missing],
        # The file says little of a table that others have changed.
        {"before": before + (f"# {drift}\n" if drift else ""), "after": text},
    )


def arm(seconds: int) -> None:
    _revert.arm(paths=[live.RULES, live.CLOSED, live.RECORD], tables=[live.TABLE], seconds=seconds)


def _accepted(wanted: Model, params: t.Mapping[str, t.Any]) -> t.Tuple[str, str, t.List[str]]:
    """The rules in a form that the kernel takes, those for an emergency, and what had to be left out."""
    features = Features()
    text, closed = _texts(wanted, params, features)
    error = live.check(text)
    missing = []
    if error:
        usable = {name: not live.check(_probe(statement)) for name, statement in _FEATURES.items()}
        features = Features(**usable)
        text, closed = _texts(wanted, params, features)
        missing = [f"this kernel has no nftables statement '{name}'; the rules do without" for name, there in usable.items() if not there]
        error = live.check(text) if missing else error
    error = error or live.check(closed)
    if error:
        raise FirewallRefused(f"nft refuses the rules, and the old ones are in force: {error}")
    return text, closed, missing


def _texts(wanted: Model, params: t.Mapping[str, t.Any], features: Features) -> t.Tuple[str, str]:
    egress = egress_rules({**params["egress"], "container_interfaces": params["container_interfaces"]})
    return ruleset(wanted, egress, features), closed_ruleset(wanted)


def _probe(statement: str) -> str:
    return f"table inet civitas-probe {{\n chain probe {{\n type filter hook input priority filter;\n {statement}\n }}\n}}\n"
