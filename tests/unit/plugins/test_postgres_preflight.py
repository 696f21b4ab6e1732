# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.postgres_problems import postgres_problems

GOOD = {
    "listen_addresses": ["127.0.0.1", "172.30.0.1"],
    "port": 5432,
    "client_networks": ["172.30.0.0/16", "fd00:1::/64"],
    "ssl_certificate_file": "/etc/civitas/certificates/postgres/fullchain.pem",
    "ssl_key_file": "/etc/civitas/certificates/postgres/key.pem",
    "memory_share": 0.5,
    "max_connections": 100,
    "disk": "ssd",
    "settings": {"work_mem": "8MB", "jit": False, "shared_preload_libraries": ["pg_stat_statements"], "pg_stat_statements.max": 500},
    "roles": [{"name": "app", "password": "canary-4711"}, {"name": "readers", "login": False}],
    "databases": [{"name": "app", "owner": "app", "extensions": ["pg_trgm", "uuid-ossp"]}],
}


def test_a_good_configuration_has_no_problem():
    assert postgres_problems(GOOD) == []
    alone = {"listen_addresses": ["127.0.0.1", "::1"], "ssl_certificate_file": "", "ssl_key_file": ""}
    assert postgres_problems({**GOOD, **alone}) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"listen_addresses": []}, "write [127.0.0.1]"),
        ({"listen_addresses": ["*"]}, "'*' is not an address"),
        ({"listen_addresses": ["0.0.0.0"]}, "every address there is"),
        ({"listen_addresses": ["::"]}, "every address there is"),
        ({"port": 0}, "from 1 to 65535"),
        ({"port": 65536}, "from 1 to 65535"),
        ({"client_networks": ["0.0.0.0/0"]}, "lets in everybody"),
        ({"client_networks": ["::/0"]}, "lets in everybody"),
        ({"client_networks": ["128.0.0.0/1"]}, "far more than your clients"),
        ({"client_networks": ["172.30.0.1/16"]}, "write 172.30.0.0/16"),
        ({"client_networks": ["10.0.0.5"]}, "write 10.0.0.5/32"),
        ({"client_networks": ["all"]}, "is not a network"),
        ({"ssl_certificate_file": "", "ssl_key_file": ""}, "beyond loopback"),
        ({"ssl_key_file": ""}, "without its counterpart"),
        ({"ssl_key_file": "key.pem"}, "write an absolute path"),
        ({"memory_share": 1.5}, "postgres_memory_share: share is 1.5; write"),
        ({"max_connections": 1}, "postgres_max_connections: max_connections is 1; write"),
        ({"disk": "tape"}, "write ssd or hdd"),
        ({"settings": {"ssl": False}}, "always encrypted"),
        ({"settings": {"password_encryption": "md5"}}, "always scram-sha-256"),
        ({"settings": {"listen_addresses": "*"}}, "write postgres_listen_addresses"),
        ({"settings": {"ssl_min_protocol_version": "TLSv1"}}, "write TLSv1.2 or TLSv1.3"),
        ({"settings": {"work_mem": "8MB\nssl = off"}}, "write it on one line"),
        ({"settings": {"work_mem": None}}, "is a NoneType"),
        ({"settings": {"Work Mem": "8MB"}}, "no name of a setting"),
        ({"roles": [{"name": "app", "password": "two\nlines"}]}, "password of role app holds a character"),
        ({"roles": [{"name": "app"}]}, "role app has no password"),
        ({"roles": [{"name": "App", "password": "x"}], "databases": []}, "write small letters"),
        ({"roles": [{"name": "postgres", "password": "x"}], "databases": []}, "belongs to PostgreSQL itself"),
        ({"roles": []}, "list that role in postgres_roles"),
        ({"databases": [{"name": "all\nhost", "owner": "app"}]}, "write small letters"),
        ({"databases": [{"name": "app", "owner": "app"}] * 2}, "listed 2 times"),
        ({"databases": [{"name": "app", "owner": "app", "extensions": ["Pg Trgm"]}]}, "no name of an extension"),
    ],
)
def test_each_mistake_says_what_to_write(change, expected):
    found = postgres_problems({**GOOD, **change})
    assert len(found) == 1, found
    assert expected in found[0]


def test_all_mistakes_are_named_at_once():
    assert len(postgres_problems({**GOOD, "port": 0, "client_networks": ["0.0.0.0/0"], "settings": {"ssl": True}})) == 3


def test_passwords_are_never_shown():
    assert "canary" not in " ".join(postgres_problems({**GOOD, "roles": [{"name": "app", "password": "canary\x00"}]}))


def test_something_that_is_no_configuration_is_an_error_of_the_filter():
    with pytest.raises(AnsibleFilterError, match="client_networks"):
        postgres_problems({"listen_addresses": ["127.0.0.1"], "port": 5432})
