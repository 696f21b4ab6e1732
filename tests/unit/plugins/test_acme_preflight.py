# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.acme_problems import acme_problems

EDGE = {"name": "edge", "hosts": ["records.example.org", "www.records.example.org"]}
WILDCARD = {"name": "any", "hosts": ["*.records.example.org"], "challenge": "dns-01"}
GOOD = {
    "certificates": [EDGE, WILDCARD],
    "directory": "https://acme.example.org/directory",
    "accept_terms": True,
    "email": "operators@example.org",
    "ca_file": "",
    "eab_kid": "",
    "eab_hmac_key": "",
    "dns_server": "192.0.2.53",
    "dns_key_name": "civitas",
    "dns_key_secret": "c2VjcmV0IG9mIHRoZSBrZXk=",
    "dns_key_algorithm": "HMAC-SHA512",
}


def test_good_ones_have_no_problem():
    assert acme_problems(GOOD) == []
    assert (
        acme_problems({**GOOD, "eab_kid": "kid-1", "eab_hmac_key": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"})
        == []
    )
    assert acme_problems({**GOOD, "email": "", "dns_server": "2001:db8::53"}) == []


def test_nothing_is_asked_for_without_certificates():
    assert acme_problems({"certificates": []}) == []


def test_a_name_server_is_needed_for_dns_01_only():
    without = {**GOOD, "dns_server": "", "dns_key_name": "", "dns_key_secret": ""}
    assert acme_problems({**without, "certificates": [EDGE]}) == []
    assert len(acme_problems(without)) == 3


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([], "hosts is empty"),
        (["192.0.2.1"], "192.0.2.1 is an address"),
        (["2001:db8::1"], "is an address"),
        (["*.records.example.org"], "write challenge: dns-01"),
        (["records"], "is no full DNS name"),
        (["bad_name.example.org"], "is no full DNS name"),
        (["-a.example.org"], "is no full DNS name"),
        (["a.*.example.org"], "is no full DNS name"),
        ([f"{'a' * 64}.example.org"], "is no full DNS name"),
        ([f"n{number}.example.org" for number in range(101)], "split it"),
    ],
)
def test_names_that_no_acme_server_takes(hosts, expected):
    found = acme_problems({**GOOD, "certificates": [{"name": "edge", "hosts": hosts}]})
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"certificates": [EDGE, EDGE]}, "declared 2 times"),
        ({"certificates": [{**EDGE, "name": "../edge"}]}, "letters, digits"),
        ({"directory": "http://acme.example.org/directory"}, "https:// address"),
        ({"accept_terms": False}, "terms of service"),
        ({"email": "operators"}, "no e-mail address"),
        ({"ca_file": "/nowhere/ca.pem"}, "there is no file /nowhere/ca.pem"),
        ({"eab_kid": "kid-1"}, "belong together"),
        ({"eab_hmac_key": "c2VjcmV0"}, "belong together"),
        ({"eab_kid": "kid-1", "eab_hmac_key": "not base64!"}, "base64url"),
        ({"eab_kid": "kid\n1", "eab_hmac_key": "c2VjcmV0"}, "white space"),
        ({"dns_server": "ns.example.org"}, "the address (not the name)"),
        ({"dns_key_name": "a key\n"}, "name of the TSIG key"),
        ({"dns_key_algorithm": "hmac-sha512"}, "write one of HMAC-SHA256"),
        ({"dns_key_secret": "secret of the key"}, "in base64"),
        ({"dns_key_secret": ""}, "in base64"),
    ],
)
def test_each_problem_is_named_with_what_to_write(change, expected):
    found = acme_problems({**GOOD, **change})
    assert len(found) == 1
    assert expected in found[0]


def test_secrets_are_not_quoted():
    found = acme_problems({**GOOD, "eab_kid": "kid-1", "eab_hmac_key": "s3cret one!", "dns_key_secret": "s3cret two!"})
    assert len(found) == 2
    assert "s3cret" not in " ".join(found)


def test_a_missing_variable_is_an_error_and_no_problem():
    with pytest.raises(AnsibleFilterError, match="directory"):
        acme_problems({"certificates": [EDGE]})
