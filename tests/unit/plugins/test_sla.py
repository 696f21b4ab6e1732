# SPDX-License-Identifier: GPL-3.0-or-later
"""Hours of a year, and what is known of them."""

from __future__ import annotations

import calendar
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.sla_report import sla_periods, sla_report
from ansible_collections.civitas.hosting.plugins.module_utils import _sla
from hypothesis import given
from hypothesis import strategies as st

HOUR, DAY = 3600, 86400


def at(*parts):
    return float(calendar.timegm((*parts, 0, 0, 0)[:6]))


def series(probe, value):
    return {"metric": {"probe": probe}, "value": [0, str(value)]}


def answer(period, **probes):
    """probes: name to (measured, down) seconds."""
    return {
        "period": period,
        "measured": [series(name, measured) for name, (measured, _down) in probes.items()],
        "down": [series(name, down) for name, (_measured, down) in probes.items()],
    }


def test_a_year_of_99_percent_has_a_budget_of_87_6_hours():
    _month, year = _sla.periods(at(2026, 11, 21))
    assert _sla.figures(year, 0, 0, 99).budget / HOUR == pytest.approx(87.6)
    assert _sla.figures(_sla.periods(at(2028, 3, 1))[1], 0, 0, 99).budget / HOUR == pytest.approx(87.84), "a leap year is longer"
    assert _sla.figures(year, 0, 0, 99.9).budget / HOUR == pytest.approx(8.76)


def test_periods_end_now_and_are_as_long_as_the_calendar_has_it():
    month, year = _sla.periods(at(2026, 2, 11))
    assert month == ("2026-02", at(2026, 2, 1), 10 * DAY, 28 * DAY)
    assert year == ("2026", at(2026, 1, 1), 41 * DAY, 365 * DAY)
    assert _sla.periods(at(2026, 12, 31))[0].whole == 31 * DAY
    assert _sla.periods(at(2027, 1, 1))[1] == ("2027", at(2027, 1, 1), 0, 365 * DAY)


@given(st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2100, 1, 1)))
def test_a_moment_lies_in_its_periods(moment):
    now = moment.replace(tzinfo=datetime.UTC).timestamp()
    month, year = _sla.periods(now)
    assert year.start <= month.start <= now
    for period in (month, year):
        assert 0 <= period.seconds < period.whole or period.seconds == int(now - period.start)
    assert 28 * DAY <= month.whole <= 31 * DAY
    assert year.whole in (365 * DAY, 366 * DAY)


def test_what_was_not_measured_is_neither_up_nor_down():
    _month, year = _sla.periods(at(2026, 1, 11))
    found = _sla.figures(year, 8 * DAY, 0.8 * DAY, 99)
    assert found.availability == pytest.approx(0.9)
    assert found.unmeasured == 2 * DAY
    assert _sla.figures(year, 0, 0, 99).availability is None
    assert _sla.figures(year, 0, 0, 99).kept is None


def test_more_measured_than_there_was_is_cut():
    _month, year = _sla.periods(at(2026, 1, 11))
    found = _sla.figures(year, 10 * DAY + 300, 11 * DAY, 99)
    assert (found.measured, found.down, found.unmeasured) == (10 * DAY, 10 * DAY, 0)


def test_a_promise_is_broken_by_the_second_after_the_budget():
    _month, year = _sla.periods(at(2026, 11, 21))
    assert _sla.figures(year, year.seconds, 87.6 * HOUR - 1, 99).kept is True
    assert _sla.figures(year, year.seconds, 87.6 * HOUR + 1, 99).kept is False


@given(st.floats(0, 400 * DAY), st.floats(0, 400 * DAY), st.floats(1, 99.999))
def test_figures_add_up(measured, down, target):
    for period in _sla.periods(at(2026, 11, 21)):
        found = _sla.figures(period, measured, down, target)
        assert found.measured + found.unmeasured == pytest.approx(period.seconds)
        assert 0 <= found.down <= found.measured
        assert found.availability is None or 0 <= found.availability <= 1


def test_a_report_names_each_probe_with_its_verdict():
    now = at(2026, 11, 21)
    month, year = sla_periods(now)
    report = sla_report(
        [
            answer(month, site=(month["seconds"], 1200), ssh=(month["seconds"] / 2, 0)),
            answer(year, site=(year["seconds"], 90 * HOUR), ssh=(month["seconds"] / 2, 0)),
        ],
        now,
        99,
    )
    text = report["text"]
    assert "Promised: 99 %, which is 87.6 h of down time" in text
    assert "down 20.0 min of 7.2 h, 6.9 h left: kept" in text
    assert "down 90.0 h of 87.6 h, 2.4 h too many: NOT KEPT" in text
    assert "240.0 h of 480.0 h were not measured" in text
    assert report["probes"]["site"]["2026"]["kept"] is False
    assert report["probes"]["ssh"]["2026-11"]["availability"] == 1


def test_a_report_of_nothing_says_so():
    assert "Nothing was measured" in sla_report([answer(period) for period in sla_periods(at(2026, 11, 21))], at(2026, 11, 21))["text"]


def test_all_is_not_said_of_almost_all():
    assert _sla.percent(0.9999996) == "99.999 %"
    assert _sla.percent(1.0) == "100.000 %"
    assert _sla.hours(59) == "59 s"


@pytest.mark.parametrize("target", [0, 100, -1, 250])
def test_a_promise_that_is_none_is_refused(target):
    with pytest.raises(AnsibleFilterError, match="write a percentage"):
        sla_report([], 0, target)


def test_filters_say_what_they_were_given():
    with pytest.raises(AnsibleFilterError, match="sla_periods"):
        sla_periods("soon")


@pytest.mark.parametrize("zone", ["Etc/UTC", "Africa/Addis_Ababa", "America/Lima"])
def test_the_playbook_knows_the_moment_in_every_time_zone(tmp_path, zone):
    playbook = pathlib.Path(__file__).resolve().parents[3] / "playbooks/sla_report.yml"
    moment = yaml.safe_load(playbook.read_text())[0]["vars"]["__civitas_now"]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": moment}}]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    program = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
    environment = {**os.environ, "TZ": zone, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_STDOUT_CALLBACK": "json"}
    before = int(time.time())
    done = subprocess.run([program, "play.yml"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout[done.stdout.index("{\n") :])["plays"][0]["tasks"][0]["hosts"]["localhost"]["msg"]
    assert before <= int(told) <= time.time()
