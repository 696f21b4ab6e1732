# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before the way in is changed, and which units have to hear of it."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _access_preflight as preflight

TRACKING = "CB00710F,203.0.113.15,2,1795270000.1,0.000012,-0.000034,0.000040,-1.2,0.001,0.05,0.012,0.0007,64.2,{}"
UNSURE = TRACKING.format("Normal").replace(",0.0007,", ",39.6,")
INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"


def wanted(login="", open_to=("deploy", "glass"), second_factor=True):
    return preflight.Wanted(login, open_to, second_factor, 5, 1000.0)


def real(argv):
    """A host of its own whose clock is kept."""
    return {"systemd-detect-virt": (1, "none"), "chronyc": (0, TRACKING.format("Normal"))}.get(argv[0], (3, "inactive"))


@pytest.mark.parametrize("login", ["", "deploy", "glass"])
def test_who_gets_in_afterwards_may_go_on(login):
    assert preflight.login_problems(wanted(login)) == []


def test_who_would_be_shut_out_is_told_what_to_write():
    (problem,) = preflight.login_problems(wanted("root"))
    assert "logs in as root" in problem
    assert "--tags access_people" in problem
    assert "ansible_user: deploy" in problem
    assert "lets sshd read its key" in problem
    assert "give access_automation (in a site's inventory: civitas_automation) a name" in preflight.login_problems(wanted("root", ()))[0]


@pytest.mark.parametrize(
    "text",
    [INCLUDE, f"# first\n\n{INCLUDE}UsePAM no\n", "include sshd_config.d/*.conf # all\n", "Include=/etc/ssh/sshd_config.d/*.conf\n"],
)
def test_a_main_file_that_reads_ours_first_is_fine(text):
    assert preflight.include_problems(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("UsePAM no\n" + INCLUDE, "line 1: 'UsePAM no' comes before"),
        ("Include /etc/ssh/other/*.conf\n" + INCLUDE, "comes before"),
        ("# " + INCLUDE, "does not read"),
        ("", "does not read"),
    ],
)
def test_one_that_does_not_is_named_with_the_line_to_write(text, words):
    (problem,) = preflight.include_problems(text)
    assert words in problem
    assert INCLUDE.strip() in problem


@pytest.mark.parametrize(("now", "fine"), [(1000.0, True), (1003.0, True), (996.0, True), (994.0, False), (1000.0 + 26, False)])
def test_the_clock_is_compared_with_the_controllers(now, fine):
    assert (preflight.clock_problems(wanted(), now, real) == []) is fine


def test_a_clock_that_nothing_keeps_is_refused_only_for_codes():
    def lost(argv):
        return (0, TRACKING.format("Not synchronised")) if argv[0] == "chronyc" else (1, "")

    assert "none are asked for" in preflight.clock_problems(wanted(), 1000.0, lost)[0]
    assert preflight.clock_problems(wanted(second_factor=False), 1000.0, lost) == []


def test_chrony_gets_the_time_that_it_needs():
    def host(*answers):
        answers = iter(answers)
        return lambda argv: (0, TRACKING.format(next(answers))) if argv[0] == "chronyc" else (1, "none")

    waited = []
    preflight.wait_for_clock(5.0, host("Not synchronised", "Not synchronised", "Normal"), 30, waited.append)
    assert waited == [1, 1]
    waited.clear()
    preflight.wait_for_clock(5.0, host(*["Not synchronised"] * 3), 3, waited.append)
    assert waited == [1, 1, 1]
    waited.clear()
    preflight.wait_for_clock(5.0, lambda argv: (0, TRACKING.format("Not synchronised")), 3, waited.append)
    assert waited == []
    # It has a time, and does not know yet how good that is.
    answers = iter([UNSURE, UNSURE, TRACKING.format("Normal")])
    preflight.wait_for_clock(5.0, lambda argv: (0, next(answers)) if argv[0] == "chronyc" else (1, "none"), 30, waited.append)
    assert waited == [1, 1]


def test_a_service_of_its_own_is_restarted():
    units = preflight.ssh_units(real)
    assert [unit["name"] for unit in units] == ["ssh.service"]
    assert preflight.restarts(units) == [["systemctl", "restart", "ssh.service"]]


def test_with_socket_activation_the_socket_gets_the_port():
    def ubuntu(argv):
        return (0, "active") if argv == ["systemctl", "is-active", "ssh.socket"] else (1, "")

    units = preflight.ssh_units(ubuntu)
    assert [unit["name"] for unit in units] == ["ssh.socket", "ssh.service"]
    assert units[0]["restart_when_newer"] == [preflight.program.OURS]
    # The service is started by the socket, so it is not enabled beside it.
    assert "enabled" not in units[1]
    # The socket's ports are made of sshd's files when systemd reads its own again.
    assert preflight.restarts(units) == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "restart", "ssh.socket"],
        ["systemctl", "restart", "ssh.service"],
    ]


def test_a_host_that_asks_for_codes_already_is_only_warned_of(tmp_path, monkeypatch):
    (tmp_path / "main").write_text(INCLUDE)
    monkeypatch.setattr(preflight.time, "time", lambda: 2000.0)
    for enabled in (False, True):
        monkeypatch.setattr(preflight, "is_enabled", lambda enabled=enabled: enabled)
        problems, warnings = preflight.judge(wanted(), real, str(tmp_path / "main"))
        assert (len(problems), len(warnings)) == ((0, 1) if enabled else (1, 0))


def test_whether_codes_are_asked_for_is_read_from_pam(tmp_path):
    service = tmp_path / "sshd"
    assert not preflight.is_enabled(str(service))
    service.write_text("# auth required pam_google_authenticator.so\n@include common-auth\n")
    assert not preflight.is_enabled(str(service))
    service.write_text("auth     required  pam_google_authenticator.so user=root\n")
    assert preflight.is_enabled(str(service))


RULES = """table inet civitas {
    chain input {
        type filter hook input priority filter - 5; policy drop;
        ip saddr @admin4 tcp dport %s counter packets 11 bytes 660 accept
        tcp dport { 80, 443 } counter packets 0 bytes 0 accept comment "nginx.https (public)"
        tcp dport 2200 counter packets 0 bytes 0 drop
    }
}
"""


@pytest.mark.parametrize(
    ("answer", "port", "open_there"),
    [
        ((0, RULES % "22"), 2222, False),
        ((0, RULES % "22"), 2200, False),
        ((0, RULES % "{ 22, 2222 }"), 2222, True),
        ((0, RULES % "2000-2300"), 2222, True),
        ((1, "Error: No such file or directory"), 2222, True),
        ((127, "nft is not installed"), 2222, True),
    ],
)
def test_ssh_moves_only_to_a_port_that_the_firewall_in_force_lets_in(answer, port, open_there):
    problems = preflight.port_problems(port, lambda argv: answer)
    assert (problems == []) is open_there
    assert all("--tags firewall_rules" in problem and f"port {port}" in problem for problem in problems)
