# SPDX-License-Identifier: GPL-3.0-or-later
"""Who lacks a second factor, and of which logins nobody was told."""

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_spool as spool
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_program as program
from ansible_collections.civitas.hosting.plugins.module_utils._login_delivery import DESTINATIONS, Config, Delivery
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_access import QUEUES, second_factors
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Undelivered

SETTINGS = {"second_factor": True, "people": ["ada", "bob"], "grace_until": ""}


@pytest.mark.parametrize(
    ("changes", "present", "values"),
    [
        ({}, ["ada", "bob", "left"], [0]),
        ({}, ["ada"], [1]),
        ({}, [], [2]),
        ({"grace_until": "2026-11-21"}, [], [0]),
        ({"grace_until": "2026-11-20"}, [], [2]),
        ({"second_factor": False}, [], []),
    ],
)
def test_who_lacks_one(changes, present, values):
    assert [one.value for one in second_factors({**SETTINGS, **changes}, present, "2026-11-21")] == values


class Refusing:
    """A destination that is down."""

    def send(self, _message):
        raise Undelivered("mail: refused")

    def close(self):
        pass


@pytest.fixture
def bases(tmp_path, monkeypatch):
    found = (str(tmp_path / "disk"), str(tmp_path / "memory"))
    monkeypatch.setattr(spool, "BASES", found)
    return found


def waiting():
    samples = program.TOPICS["announcements"](program.Config("/d", [], [], [], {}), {}, time.time())
    return {(one.name[len("civitas_login_announcements_") :], dict(one.labels)["queue"]): one.value for one in samples}


def test_a_host_that_announces_nothing(bases):
    assert waiting() == {}


def test_the_queues_are_those_of_the_delivery():
    assert ("new", *DESTINATIONS) == QUEUES


def test_announcements_that_wait(bases, tmp_path):
    then = int(time.time()) - 3600
    for index, base in enumerate(bases):
        spool.put(spool.event({"PAM_USER": "ada", "PAM_SERVICE": "sshd"}, then + 60 * index, f"{index}"), [base])
    # Noted, and nobody has looked at it.
    assert waiting() == {("waiting", "new"): 2, ("waiting_time_seconds", "new"): then}
    config = Config("h", {"host": "127.0.0.1"}, {}, "each", 0)
    delivery = Delivery(config, bases, str(tmp_path / "record"), str(tmp_path / "state"), {"mail": Refusing})
    delivery.run(0)
    assert waiting() == {("waiting", "new"): 0, ("waiting", "mail"): 2, ("waiting_time_seconds", "mail"): then}
    # The daily digest is not named by its moment.
    delivery.queue({"id": "digest-1", "text": ""})
    os.utime(f"{bases[0]}/mail/digest-1.json", (then - 60, then - 60))
    (tmp_path / "disk/mail/.half.json").touch()
    assert (waiting()["waiting", "mail"], waiting()["waiting_time_seconds", "mail"]) == (3, then - 60)
