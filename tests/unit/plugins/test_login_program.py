# SPDX-License-Identifier: GPL-3.0-or-later
"""What people and timers call; the deliveries themselves are tried in test_login_delivery.py and in the scenario logins."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery
from ansible_collections.civitas.hosting.plugins.module_utils import _login_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _login_spool as spool


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host of files without destinations, on which all units run."""
    config = {"host": "h", "smtp": {}, "webhook": {}, "automation": "each", "automation_minutes": 60}
    (tmp_path / "logins.json").write_text(json.dumps(config))
    (tmp_path / "systemctl").write_text("#!/bin/sh\ncase $* in *digest.timer) exit $DIGEST;; esac\n")
    (tmp_path / "systemctl").chmod(0o755)
    bases = [str(tmp_path / "disk"), str(tmp_path / "memory")]
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DIGEST", "0")
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(delivery.read_config, "__defaults__", (str(tmp_path / "logins.json"),))
    monkeypatch.setattr(delivery.read_state, "__defaults__", (str(tmp_path / "state.json"),))
    monkeypatch.setattr(delivery.Delivery.__init__, "__defaults__", (bases, str(tmp_path / "l.jsonl"), str(tmp_path / "state.json"), None))
    monkeypatch.setattr(delivery, "journal", lambda *_arguments: iter(()))
    monkeypatch.setattr(program, "_is_root", lambda: True)
    return tmp_path


def test_pam_never_hears_of_a_problem(monkeypatch):
    told = []

    def fail(_environment):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(spool, "note_login", fail)
    monkeypatch.setattr(spool, "to_journal", lambda _priority, message: told.append(message))
    monkeypatch.setenv("PAM_USER", "alice")
    assert program.main(["pam"]) == 0
    assert "a login of alice WILL NOT BE ANNOUNCED" in told[0] and "out of memory" in told[0]


def test_who_is_not_root_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(program, "_is_root", lambda: False)
    assert program.main(["status"]) == 1
    assert "write sudo before it" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{", "[]", '{"host": "h"}'])
def test_a_configuration_that_cannot_be_used(host, capsys, content):
    (host / "logins.json").unlink()
    if content is not None:
        (host / "logins.json").write_text(content)
    assert program.main(["deliver"]) == 1
    assert "run the site playbook, it writes this file" in capsys.readouterr().err


def test_status_without_destinations(host, capsys):
    assert program.main(["status"]) == 0
    assert "no destination is configured" in capsys.readouterr().out


def test_status_names_what_waits_and_what_does_not_run(host, capsys, monkeypatch):
    monkeypatch.setenv("DIGEST", "3")
    spool.put({"id": "1", "time": 0}, [str(host / "disk")])
    os.utime(host / "disk/new/1.json", (time.time() - 600, time.time() - 600))
    assert program.main(["status"]) == 1
    told = capsys.readouterr().err
    assert "new: 1 wait, the oldest for 10 minutes" in told and "civitas-logins-digest.timer does not run" in told


def test_a_test_without_destinations_is_no_success(host, capsys):
    assert program.main(["test"]) == 1
    assert "Set access_announce_smtp or access_announce_webhook" in capsys.readouterr().err


def test_a_digest_covers_the_time_since_the_last_one(host, monkeypatch):
    asked = []
    monkeypatch.setattr(delivery, "journal", lambda since, until, _identifiers: asked.append((since, until)) or iter(()))
    monkeypatch.setattr(delivery, "journal_begins", lambda: 0.0)
    assert program.main(["digest"]) == program.main(["digest"]) == 0
    (first, end), (second, _now) = asked
    assert end - first == 86400 and second == end
    # A clock that jumped, or a month without power.
    (host / "state.json").write_text(json.dumps({"digest": end + 86400 * 365}))
    program.main(["digest"])
    assert asked[2][1] - asked[2][0] == 86400


def test_deliver_records(host):
    spool.put(spool.event({"PAM_SERVICE": "login", "PAM_USER": "root", "PAM_TTY": "tty1"}, time.time() - 60, "x"), [str(host / "disk")])
    assert program.main(["deliver"]) == 0
    (login,) = [json.loads(line) for line in (host / "l.jsonl").read_text().splitlines()]
    assert (login["user"], login["kind"]) == ("root", "root console")


def test_retry_forgets_how_long_to_wait(host):
    (host / "state.json").write_text(json.dumps({"mail": {"failures": 9, "tried": time.time()}}))
    program.main(["retry"])
    assert delivery.read_state(str(host / "state.json"))["mail"]["tried"] == 0
