# SPDX-License-Identifier: GPL-3.0-or-later
"""Which updates wait and since when, when a reboot is due, and how long all of it is supported."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_packages as packages
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render

NOW = 1_800_000_000.0
DAY = 86400.0


def values(samples):
    found = list(samples)
    render(found, packages.TITLES)
    return {(one.name[len("civitas_") :], *(value for _name, value in one.labels)): one.value for one in found}


@pytest.mark.parametrize(
    ("line", "security"),
    [
        # Debian 12 and 13
        ("Inst libc6 [2.36-9+deb12u3] (2.36-9+deb12u7 Debian-Security:12/stable-security [amd64])", True),
        ("Inst openssl [3.5.1-1] (3.5.4-1~deb13u1 Debian:13.2/stable, Debian-Security:13/stable-security [amd64])", True),
        ("Inst tzdata [2024a-0+deb12u1] (2024b-0+deb12u1 Debian:12.8/oldstable, Debian:12-updates/oldstable-updates [all])", False),
        ("Inst new-dependency (1.0-1 Debian-Security:12/oldstable-security [amd64]) []", True),
        ("Inst debian-security-support [1:12] (1:13 Debian:13.2/stable [all])", False),
        # Ubuntu 22.04 and 24.04
        ("Inst libssl3 [3.0.2-0ubuntu1.15] (3.0.2-0ubuntu1.18 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])", True),
        ("Inst openssh-server [1:9.6p1-3ubuntu13] (1:9.6p1-3ubuntu13.5 Ubuntu:24.04/noble-security [amd64]) [a:amd64 on b:amd64]", True),
        ("Inst vim [2:8.2] (2:8.3 UbuntuESMApps:22.04/jammy-apps-security [amd64])", True),
        ("Inst base-files [12ubuntu4.6] (12ubuntu4.7 Ubuntu:22.04/jammy-updates [amd64])", False),
        # Others
        ("Inst thing [1] (2 Acme security team:1/main [amd64])", False),
        ("Inst local-package [1] (2 now [amd64])", False),
        ("Conf libc6 (2.36-9+deb12u7 Debian-Security:12/stable-security [amd64])", False),
        ("Remv old [1.0]", False),
    ],
)
def test_security_updates(line, security):
    assert packages.security_updates(f"{line}\n") == ([line.split()[1]] if security else [])


def test_since_when_updates_wait():
    state = {}
    assert values(packages.updates(["a"], state, NOW, NOW - 60)) == {
        ("updates_security_pending",): 1,
        ("updates_security_time_seconds",): NOW,
        ("package_lists_time_seconds",): NOW - 60,
    }
    later = values(packages.updates(["a", "b"], state, NOW + DAY, None))
    assert later == {("updates_security_pending",): 2, ("updates_security_time_seconds",): NOW}
    # The one that waited longest has come.
    assert values(packages.updates(["b"], state, NOW + 2 * DAY, None))["updates_security_time_seconds",] == NOW + DAY
    assert values(packages.updates([], state, NOW + 3 * DAY, None)) == {("updates_security_pending",): 0}
    assert values(packages.updates(["a"], state, NOW + 4 * DAY, None))["updates_security_time_seconds",] == NOW + 4 * DAY


def test_a_clock_that_was_ahead_does_not_keep_updates_young():
    state = {"a": NOW + 10 * DAY}
    assert values(packages.updates(["a"], state, NOW, None))["updates_security_time_seconds",] == NOW


@pytest.mark.parametrize(
    ("running", "installed", "newer"),
    [
        ("6.1.0-27-amd64", ["6.1.0-27-amd64", "6.1.0-9-amd64"], False),
        ("6.1.0-9-amd64", ["6.1.0-27-amd64", "6.1.0-9-amd64"], True),
        ("6.12.48+deb13-amd64", ["6.12.57+deb13-amd64", "6.12.48+deb13-amd64"], True),
        ("6.12.57+deb13-cloud-amd64", ["6.12.57+deb13-cloud-amd64"], False),
        ("5.15.0-126-generic", ["5.15.0-125-generic", "5.15.0-126-generic"], False),
        ("6.8.0-48-generic", ["6.8.0-48-generic", "6.8.0-49-generic"], True),
        # A container, and a kernel of the provider's.
        ("6.1.0-9-amd64", [], False),
        ("6.6.1-provider", ["6.8.0-49-generic"], False),
        ("", ["x"], False),
    ],
)
def test_newer_kernel(running, installed, newer):
    assert packages.newer_kernel(running, installed) is newer


def test_since_when_a_reboot_is_due():
    state = {}
    key = ("reboot_required_time_seconds",)
    assert values(packages.reboot(False, "one", state, NOW)) == {}
    assert values(packages.reboot(True, "one", state, NOW + 60)) == {key: NOW + 60}
    assert values(packages.reboot(True, "one", state, NOW + 9 * DAY)) == {key: NOW + 60}
    # Another reason, after a boot that ended the first.
    assert values(packages.reboot(True, "two", state, NOW + 10 * DAY)) == {key: NOW + 10 * DAY}
    assert values(packages.reboot(False, "two", state, NOW + 11 * DAY)) == {}
    assert values(packages.reboot(True, "two", state, NOW + 12 * DAY)) == {key: NOW + 12 * DAY}


def test_support_lasts_through_its_last_day():
    end = datetime.datetime(2028, 7, 1, tzinfo=datetime.UTC).timestamp()
    assert values(packages.support({"Debian 12": "2028-06-30"})) == {("support_ends_time_seconds", "Debian 12"): end}
    with pytest.raises(ValueError, match="soon"):
        list(packages.support({"x": "soon"}))
