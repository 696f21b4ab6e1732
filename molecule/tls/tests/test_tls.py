# SPDX-License-Identifier: GPL-3.0-or-later
"""What independent judges say of the edge; and that they object to an edge that deserves it.

Each host has one of the two TLS profiles. testssl.sh looks at all of them at once.
"""

from __future__ import annotations

import itertools
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import testinfra

from tests.unit import pki
from tools import judges
from tools.bed import BedError

MADE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
NAME = "records.test"
EDGE, BROKEN = 443, 10443


def address_of(host):
    return next(address for address in host.interface("eth0").addresses if "." in address)


def variable(host, name):
    return host.ansible("ansible.builtin.debug", f"var={name}")[name]


def ends_tls(host):
    return variable(host, "nginx_tls_mode") == "terminate"


def start_bad_edge(host):
    started = host.run("systemctl start broken.service")
    assert started.rc == 0, host.run("journalctl -u broken.service -n 5").stdout


@pytest.fixture(name="edge")
def _edge(host):
    """The address of a host that ends TLS; the bad edge runs there, too."""
    if not ends_tls(host):
        pytest.skip("somebody else ends TLS for this host")
    start_bad_edge(host)
    return address_of(host)


@pytest.fixture(scope="session", name="ca_file")
def _ca_file(tmp_path_factory):
    """What a judge trusts: the internal CA, and the root of the RSA pair."""
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    path.write_text((MADE / "ca.pem").read_text() + (MADE / "material/root.pem").read_text())
    return path


@pytest.fixture(scope="session", name="grades")
def _grades(request, ca_file):
    """Grades by address, and that of one bad edge, as things that will be known in a minute: each takes that long."""
    hosts = testinfra.get_hosts(["ansible://servers"], ansible_inventory=request.config.getoption("ansible_inventory"))
    edges = [host for host in hosts if ends_tls(host)]
    start_bad_edge(edges[0])
    with ThreadPoolExecutor(len(edges) + 1) as pool:
        grades = {address: pool.submit(judges.testssl, address, EDGE, NAME, ca_file) for address in map(address_of, edges)}
        grades["bad"] = pool.submit(judges.testssl, address_of(edges[0]), BROKEN, NAME, ca_file)
        yield grades


@pytest.fixture(name="profile")
def _profile(host):
    return variable(host, "nginx_tls_profile")


@pytest.fixture(name="configuration")
def _configuration(host):
    """All that nginx reads."""
    dump = host.run("nginx -T")
    assert dump.rc == 0, dump.stderr
    return dump.stdout


# --- the configuration


def test_gixy_finds_nothing(configuration):
    assert judges.gixy(configuration) == []


def test_gixy_has_read_every_server(configuration):
    """A fault in each of them is found: what gixy cannot read, it passes over in silence."""
    numbers = itertools.count()
    fault = "location /planted{} {{ alias /srv/planted/; }}\n"
    planted, servers = re.subn(r"^\s*(?=server_name )", lambda _match: fault.format(next(numbers)), configuration, flags=re.M)
    found = judges.gixy(planted)
    places = " ".join(finding.text for finding in found if finding.check == "alias_traversal")
    assert servers > 3
    assert [number for number in range(servers) if f"/planted{number} " not in places] == []


def test_gixy_objects_to_the_bad_edge(host):
    dump = host.run("nginx -T -c /etc/broken.conf").stdout
    assert {"alias_traversal", "weak_ssl_tls"} <= {finding.check for finding in judges.gixy(dump)}


# --- the handshake


def test_sslyze_agrees_with_the_profile(edge, profile, ca_file):
    assert judges.sslyze(edge, EDGE, NAME, ca_file, profile) == {}


def test_sslyze_tells_the_profiles_apart(edge, profile, ca_file):
    issues = judges.sslyze(edge, EDGE, NAME, ca_file, "modern")
    assert ("tls_versions" in issues) == (profile == "intermediate")


def test_sslyze_objects_to_another_ca_and_to_another_name(edge, profile, ca_file, tmp_path):
    other = tmp_path / "ca.pem"
    other.write_text(pki.issue("Another", ca=True).pem)
    assert "certificate_path_validation" in judges.sslyze(edge, EDGE, NAME, other, profile)
    assert "certificate_path_validation" in judges.sslyze(edge, BROKEN, "other.test", ca_file, profile)


def test_sslyze_objects_to_the_bad_edge(edge, ca_file):
    assert {"tls_versions", "ciphers"} <= set(judges.sslyze(edge, BROKEN, NAME, ca_file, "intermediate"))


def test_a_server_that_does_not_answer_has_no_judgment(edge, ca_file):
    with pytest.raises(BedError, match="could not judge"):
        judges.sslyze(edge, 9, NAME, ca_file, "intermediate")


# --- the whole from outside


def test_testssl_gives_an_a_plus(edge, grades):
    grade = grades[edge].result()
    assert grade.grade == "A+", grade


def test_testssl_finds_nothing_else(edge, grades):
    """The internal CA's leaf names no place to ask for its revocation: the hosts are given the list."""
    assert [str(finding) for finding in grades[edge].result().findings if not finding.check.startswith("cert_revocation")] == []


def test_testssl_objects_to_the_bad_edge(grades):
    grade = grades["bad"].result()
    assert grade.grade not in ("A+", "A", "A-")
    assert any("HSTS" in reason for reason in grade.reasons), grade
    assert any("TLS 1.0" in reason for reason in grade.reasons), grade
