# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule for an inventory, on its own; hostile values; a valid site stays valid."""

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _site_rules as rules
from ansible_collections.civitas.hosting.plugins.module_utils._site_rules import Host, Problem
from hypothesis import given, settings
from hypothesis import strategies as st

VARIABLES = rules.site_variables(["demo", "primero"])
VALID = {
    "civitas_environment": "qa",
    "civitas_tier": "single",
    "civitas_application": "demo",
    "civitas_domain": "records.example.org",
    "civitas_aliases": ["www.example.org"],
    "civitas_public_https_port": 8443,
    "civitas_timezone": "Africa/Nairobi",
    "civitas_automation": {"name": "deploy", "ssh_keys": ["ssh-ed25519 AAAA"], "from": ["192.0.2.7"]},
    "civitas_admin_networks": ["192.0.2.0/24"],
    "civitas_secrets_file": "/srv/site/secrets.yml",
    "ansible_host": "192.0.2.1",
}


def host(name="server", groups=(), **changes):
    values = {key: value for key, value in {**VALID, **changes}.items() if value is not ...}
    return Host(name=name, groups=[*groups], names=frozenset(values), values=values)


def judge(one):
    """All rules for one host."""
    return [
        *rules.check_site_variables(one, VARIABLES),
        *rules.check_unknown_site_names(one, VARIABLES),
        *rules.check_aliases(one),
        *rules.check_control_node(one),
        *rules.check_environment(one, ["base", "app_demo"]),
        *rules.check_certificate_variables(one, VARIABLES),
        *rules.check_addresses([one]),
        *rules.check_same_everywhere([one], VARIABLES),
        *rules.check_single_server(one.values.get("civitas_tier"), [one]),
        *rules.check_bastion(one, [one]),
    ]


def test_a_valid_site_has_no_problem():
    assert judge(host()) == []


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
NAME = st.builds(
    lambda labels, last: ".".join([*labels, last]), st.lists(LABEL, min_size=1, max_size=4), st.sampled_from(["org", "ke", "localhost"])
)


@settings(deadline=None)
@given(
    domain=NAME,
    aliases=st.lists(NAME, unique=True, max_size=3),
    port=st.integers(1, 65535),
    zone=st.sampled_from(["Etc/UTC", "UTC", "Asia/Kathmandu", "America/Argentina/Salta"]),
    kind=st.sampled_from(["qa", "development"]),
    application=st.sampled_from(["demo", "primero"]),
)
def test_valid_sites_stay_valid(domain, aliases, port, zone, kind, application):
    site = host(
        civitas_domain=domain,
        civitas_aliases=[alias for alias in aliases if alias != domain],
        civitas_public_https_port=port,
        civitas_timezone=zone,
        civitas_environment=kind,
        civitas_application=application,
    )
    assert judge(site) == []


HOSTILE = [
    None,
    0,
    -1,
    True,
    1.5,
    float("nan"),
    "",
    " ",
    "\n",
    "a\nb",
    "\x00",
    "\x1b[2J",
    "\ud800",
    "$(reboot)",
    "; rm -rf / #",
    "`id`",
    "{{ 1 }}",
    "../../../etc/passwd\n",
    "a" * 10_000_000,
    "é" * 300,
    [],
    {},
    ["a"],
    {"a": 1},
    [None],
    [["x"]],
    b"bytes",
    object(),
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", list(VARIABLES))
def test_hostile_values_are_refused_in_few_words(name, value):
    paths = ("civitas_secrets_file", "civitas_ca_file", "civitas_certificate_trust_file", "civitas_backup_keys_file")
    if (name in paths and isinstance(value, str) and value.strip() and "\n" not in value and value.isprintable()) or (
        name in ("civitas_aliases", "civitas_waivers", "civitas_people", "civitas_contacts") and value == []
    ):
        return
    if (name == "civitas_certificate_fetch_missing" and value is True) or (name == "civitas_certificate_files" and value == ["a"]):
        return
    if (name == "civitas_certificate_passphrase_secret" and value == "a") or (name == "civitas_second_factor" and value is True):
        return
    if name == "civitas_bastion" and value == "":
        return  # none
    problems = rules.check_site_variables(host(**{name: value}), VARIABLES)
    if name in paths and value == "\ud800":
        return
    assert [problem.variable for problem in problems] == [name]
    text = rules.report(problems)
    assert len(text) < 1000
    assert "\x1b" not in text and "\x00" not in text
    text.encode("utf-8")


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_rule_breaks_on_hostile_values(value):
    for name in [*VARIABLES, "ansible_host", "ansible_port", "ansible_connection"]:
        judge(host(**{name: value}))


@pytest.mark.parametrize(
    "name",
    ["civitas_environment", "civitas_tier", "civitas_application", "civitas_domain", "civitas_automation", "civitas_admin_networks"],
)
def test_required(name):
    (problem,) = rules.check_site_variables(host(**{name: ...}), VARIABLES)
    assert (problem.variable, problem.problem) == (name, "is not set")
    assert problem.remedy.startswith(f"Write {name}: ")


def test_required_under_a_misspelled_name():
    problems = rules.check_site_variables(host(civitas_domain=..., civtas_domain="x.org"), VARIABLES)
    assert problems[0].problem == "is not set; civtas_domain is: did you mean civitas_domain?"


def test_what_could_not_be_rendered_is_judged_elsewhere():
    one = Host("server", [], frozenset(VALID), {key: value for key, value in VALID.items() if key != "civitas_domain"})
    assert judge(one) == []


@pytest.mark.parametrize(
    ("name", "value", "problem", "remedy"),
    [
        ("civitas_environment", "prodution", "did you mean production?", "Write one of production, staging, qa"),
        ("civitas_environment", "Production", "did you mean production?", "Write one of"),
        ("civitas_environment", "live", "is 'live', which nobody knows", "Write one of"),
        ("civitas_tier", "national", "is 'national', which nobody knows", "Write one of single, tier4."),
        ("civitas_application", "dmo", "did you mean demo?", "Write one of demo, primero."),
        ("civitas_application", 5, "is 5, a number and not a text", "Write one of demo, primero."),
        ("civitas_public_https_port", 0, "is 0 and out of range", "1 to 65535"),
        ("civitas_public_https_port", 65536, "is 65536 and out of range", "1 to 65535"),
        ("civitas_public_https_port", "https", "is 'https' and not a port", "1 to 65535"),
        ("civitas_public_https_port", True, "is True and not a port", "1 to 65535"),
        ("civitas_timezone", "Africa/Nairobbi", "there is no such time zone", "Write Africa/Nairobi."),
        ("civitas_timezone", "../../etc/passwd", "there is no such time zone", "Etc/UTC"),
        ("civitas_secrets_file", "/srv/secrets/", "is '/srv/secrets/': a directory", "path of a file"),
        ("civitas_secrets_file", "a\nb", "a line break", "path of a file"),
        ("civitas_aliases", "www.example.org", "a text and not a list", "[www.example.org]"),
        ("civitas_aliases", ["a.org", "B.org"], "has an item that is 'B.org': it has upper-case letters", "Write b.org"),
        ("civitas_aliases", ["a.org", "a.org"], "names a.org twice", "Remove"),
        ("civitas_certificate_source", "bought", "is 'bought', which nobody knows", "Write one of internal, delivered, acme."),
        ("civitas_certificate_files", "a.pem", "a text and not a list", "[certificate/fullchain.pem, certificate/key.pem]"),
        ("civitas_certificate_files", [], "is empty", "[certificate/fullchain.pem, certificate/key.pem]"),
        ("civitas_certificate_files", ["a.pem", "a.pem"], "names 'a.pem' twice", "Remove"),
        ("civitas_certificate_files", ["certificate/"], "has an item that is 'certificate/': a directory", "path of a file"),
        ("civitas_certificate_passphrase_secret", "Correct horse", "is no name of a secret", "into the secrets file"),
        ("civitas_certificate_fetch_missing", "yes", "is 'yes', a text", "Write true or false."),
        ("civitas_acme_directory", "acme.example.org", "is 'acme.example.org': no address", "such as https://"),
        ("civitas_acme_directory", "http://acme.example.org/", "only https proves who answers", "such as https://"),
        ("civitas_acme_directory", "https://me@acme.example.org/", "no address", "such as https://"),
        ("civitas_acme_directory", "https://acme.example.org:x/", "no address", "such as https://"),
        ("civitas_acme_email", "me", "is 'me': no mail address", "certificates@example.org"),
        ("civitas_acme_email", "a b@example.org", "no mail address", "certificates@example.org"),
        ("civitas_acme_email", "me@localdomain", "no mail address", "certificates@example.org"),
        ("civitas_acme_challenge", "http", "is 'http': did you mean http-01?", "Write one of http-01, dns-01."),
        ("civitas_waivers", {"rule": "wildcard"}, "is no list", "Write a list such as"),
        (
            "civitas_waivers",
            [{"rule": "internal_ca", "reason": "It is on its way.", "until": "2020-01-01"}],
            "waives internal_ca with a last day that passed on 2020-01-01",
            "remove the waiver",
        ),
    ],
)
def test_values(name, value, problem, remedy):
    (found,) = rules.check_site_variables(host(**{name: value}), VARIABLES)
    assert problem in found.problem
    assert remedy in found.remedy


def test_a_port_as_text_is_a_port():
    assert rules.check_port("443") is None


@pytest.mark.parametrize(
    "name", ["localhost", "demo.localhost", "records.example.org", "a-b.example.co.ke", "xn--bcher-kva.example", "1.example.org"]
)
def test_good_domains(name):
    assert rules.check_domain(name) is None


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("https://records.example.org", "a scheme", "Write records.example.org"),
        ("https://records.example.org:8443/path", "a scheme", "Write records.example.org"),
        ("records.example.org/", "holds a path", "Write records.example.org"),
        ("records.example.org:8443", "holds a port", "Write records.example.org, and the port as civitas_public_https_port: 8443"),
        ("_bad_:80", "holds a port", "Write the full name"),
        ("records_1.example.org", "an underscore", "Write records-1.example.org"),
        ("records.example.org ", "spaces or line breaks", "Write records.example.org without"),
        ("records.example.org\n", "spaces or line breaks", "Write records.example.org without"),
        (" ", "spaces around", "Write the full name"),
        ("Records.Example.org", "upper-case", "Write records.example.org"),
        ("192.0.2.1", "an IP address", "Write the full name"),
        ("2001:db8::1", "an IP address", "Write the full name"),
        ("::1", "an IP address", "Write the full name"),
        ("[2001:db8::1]", "an IP address", "Write the full name"),
        ("*.example.org", "a wildcard", "Write the full name"),
        ("me@example.org", "a mail address", "Write the full name"),
        ("records", "without a domain", "Write the full name"),
        ("records.example.org.", "ends with a dot", "Write records.example.org"),
        ("bücher.example", "letters of DNS", "Write xn--bcher-kva.example"),
        ("records..example.org", "parts of a name", "Write the full name"),
        ("-a.example.org", "parts of a name", "Write the full name"),
        (f"{'a' * 64}.org", "parts of a name", "Write the full name"),
        ("a." * 130 + "org", "at most 253", "Write the full name"),
        ("example.123", "its last part is a number", "Write the full name"),
        ("ministry.primero.org", "the vendor's; a site on its own servers needs a domain of its own", "Register a domain"),
        ("primero.org", "the vendor's", "Register a domain"),
    ],
)
def test_bad_domains(name, problem, remedy):
    found = rules.check_domain(name)
    assert problem in found[0]
    assert remedy in found[1]


def test_only_the_vendors_own_names_are_refused():
    assert rules.check_domain("myprimero.org") is None
    assert rules.check_domain("primero.org.ke") is None


def test_unknown_site_variables():
    found = rules.check_unknown_site_names(host(civitas_timezon="x", civitas_zzzzzzzzzzzzz="x", my_own="x"), VARIABLES)
    assert [(problem.variable, problem.problem) for problem in found] == [
        ("civitas_timezon", "is no variable of this collection: did you mean civitas_timezone?"),
        ("civitas_zzzzzzzzzzzzz", "is no variable of this collection"),
    ]
    assert found[1].remedy == "Remove it, or take a name that does not begin with civitas_."


def test_the_domain_is_no_alias():
    (problem,) = rules.check_aliases(host(civitas_aliases=["a.org", "records.example.org"]))
    assert problem.problem == "names civitas_domain itself, 'records.example.org'"


def test_site_variables_are_the_same_everywhere():
    hosts = [host("a"), host("b", civitas_domain="other.example.org"), host("c")]
    (problem,) = rules.check_same_everywhere(hosts, VARIABLES)
    assert problem.variable == "civitas_domain"
    assert problem.problem == "differs between hosts: 'records.example.org' on a, c; 'other.example.org' on b"


def test_the_way_in_may_differ():
    networks = [host("gate", civitas_admin_networks=["0.0.0.0/0"]), host("a", civitas_admin_networks=["10.0.0.1"], civitas_bastion="gate")]
    assert rules.check_same_everywhere(networks, VARIABLES) == []


def test_a_secret_in_place_of_its_name_is_not_shown():
    (found,) = rules.check_site_variables(host(civitas_certificate_passphrase_secret="Correct Horse"), VARIABLES)
    assert "orrect" not in rules.report([found])


@pytest.mark.parametrize("kind", ["production", "staging", "qa", "development", "backup", "bastion"])
def test_environments(kind):
    refused = kind in ("backup", "bastion")
    assert len(rules.check_environment(host(civitas_environment=kind), ["base", "app_demo"])) == refused
    assert rules.check_environment(host(civitas_environment=kind), ["base"]) == []


@pytest.mark.parametrize("kind", ["production", "staging", "qa", "development", "backup", "bastion"])
def test_only_development_does_without_a_second_factor(kind):
    found = rules.check_environment(host(civitas_environment=kind, civitas_second_factor=False), ["base"])
    assert [problem.variable for problem in found] == ([] if kind == "development" else ["civitas_second_factor"])
    assert rules.check_environment(host(civitas_environment=kind, civitas_second_factor=True), ["base"]) == []


MAIL = {"host": "mail.example.org", "sender": "registry@example.org", "to": ["administrators@example.org"]}
RELAY = {"host": "mail.example.org", "from": "logins@example.org", "to": ["administrators@example.org"]}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("civitas_admin_networks", "192.0.2.0/24", "a text and not a list"),
        ("civitas_admin_networks", [], "is empty"),
        ("civitas_admin_networks", ["192.0.2.1/24"], "host bits"),
        ("civitas_admin_networks", ["office"], "no network"),
        ("civitas_admin_networks", [1], "no network"),
        ("civitas_people", {"name": "a"}, "no list of people"),
        ("civitas_people", [{"ssh_keys": []}], "no list of people"),
        ("civitas_automation", "deploy", "no account"),
        ("civitas_break_glass", {"name": "a"}, "no account"),
        ("civitas_announce_smtp", ["mail.example.org"], "a list and not a mapping"),
        ("civitas_announce_smtp", {"host": "mail.example.org"}, "lacks from, to"),
        ("civitas_announce_smtp", {**RELAY, "user": "logins", "password": "canary"}, "password_secret: announce_smtp_password"),
        ("civitas_announce_smtp", {**RELAY, "user": "logins"}, "has one of user and password_secret"),
        ("civitas_announce_smtp", {**RELAY, "password_secret": "announce_smtp_password"}, "has one of user and password_secret"),
        ("civitas_announce_smtp", {**RELAY, "user": "logins", "password_secret": "Canary 1"}, "password_secret that is no name"),
        ("civitas_mail", "mail.example.org", "a text and not a mapping"),
        ("civitas_mail", {"host": "mail.example.org"}, "lacks sender, to"),
        ("civitas_mail", {**MAIL, "user": "registry", "password": "canary"}, "password_secret: mail_password"),
        ("civitas_mail", {**MAIL, "user": "registry"}, "has one of user and password_secret"),
        ("civitas_mail", {**MAIL, "from": "registry@example.org"}, "has 'from', which nobody reads"),
        ("civitas_mail", {**MAIL, "senders": ["a"]}, "did you mean sender?"),
        ("civitas_mail_proof", "example.org", "a text and not a mapping"),
        ("civitas_mail_proof", {"selector": "mail"}, "did you mean selectors?"),
        ("civitas_mail_proof", {"mailbox": {"host": "imap.example.org", "password": "canary"}}, "password_secret: mailbox_password"),
        ("civitas_mail_proof", {"mailbox": {"password_secret": "Canary 1"}}, "password_secret that is no name"),
        ("civitas_alert_receivers", [], "no alarm would reach anybody"),
        ("civitas_alert_receivers", {"name": "team"}, "a mapping, so no alarm would reach anybody"),
        ("civitas_alert_receivers", ["team"], "no mapping with a name"),
        ("civitas_alert_receivers", [{"name": "chat", "webhook": "https://chat.example.org/canary"}], "a text and not a mapping"),
        ("civitas_alert_receivers", [{"name": "chat", "webhook": {"url": "https://chat.example.org/canary"}}], "url_secret in its place"),
        ("civitas_alert_receivers", [{"name": "chat", "webhook": {"format": "slack"}}], "lacks url_secret"),
        ("civitas_alert_receivers", [{"name": "sms", "sms": {"url_secret": "a", "headers": {"X": "canary"}}}], "headers_secret in its"),
        ("civitas_alert_receivers", [{"name": "sms", "sms": {"url_secret": "a", "headers_secret": "b"}}], "Authorization: sms_token"),
        ("civitas_alert_receivers", [{"name": "sms", "sms": {"url_secret": ["a"]}}], "names a secret that is no name"),
        ("civitas_mail_webhook", {"url": "https://chat.example.org/canary"}, "url_secret: mail_webhook_url"),
        ("civitas_announce_webhook", "https://chat.example.org/canary", "a text and not a mapping"),
        ("civitas_announce_webhook", {"url": "https://chat.example.org/canary"}, "url_secret: announce_webhook_url"),
        ("civitas_announce_webhook", {"format": "slack"}, "lacks url_secret"),
        ("civitas_announce_webhook", {"url_secret": "https://chat.example.org/canary"}, "url_secret that is no name of a secret"),
        ("civitas_address", "a.example.org", "no address"),
        ("civitas_address", "127.0.0.1", "no other host reaches that"),
        ("civitas_monitoring_mode", "heavy", "light, full"),
        ("civitas_heartbeat_secret", "https://outside.example.org/canary", "is no name of a secret"),
        ("civitas_restore_drill", ["records"], "is a list and not a mapping"),
        ("civitas_restore_drill", {"host": ["records"]}, "did you mean hosts?"),
        ("civitas_restore_drill", {"hosts": "records"}, "has no list of hosts"),
        ("civitas_restore_drill", {"hosts": []}, "has no list of hosts"),
        ("civitas_restore_drill", {"hosts": ["records", "records"]}, "has records twice"),
        ("civitas_data_volume", "/dev/sdb", "is a text and not a mapping"),
        ("civitas_data_volume", {"path": "/srv/data"}, "lacks device"),
        ("civitas_data_volume", {"device": "LABEL=data", "filesytem": "xfs"}, "did you mean filesystem?"),
        ("civitas_data_volume", {"device": "LABEL=data", "encryption": "operator"}, "has an encryption that is a text"),
        ("civitas_data_volume", {"device": "LABEL=data", "encryption": {"by": "operator", "passphrase": "canary"}}, "has a passphrase"),
        ("civitas_monitoring", {"page_user": ["anna"]}, "did you mean page_users?"),
        ("civitas_monitoring", {"page_users": [{"name": "anna", "password": "canary"}]}, "no list of names"),
        ("civitas_monitoring", {"probes": "https://x.example.org/"}, "has probes that are a text and no list of mappings"),
        ("civitas_monitoring", {"probes": ["https://x.example.org/"]}, "Write a list such as [{name: helpdesk"),
        ("civitas_monitoring", {"page_name": "monitoring.example.org"}, "nobody could see the page"),
        ("civitas_monitoring", {"page_users": ["anna"], "page_name": "https://a.example.org/"}, "has page_name, which is 'https"),
        ("civitas_monitoring", {"page_users": ["anna"], "page_networks": ["10.0.0.1/8"]}, "has page_networks, which has '10.0.0.1/8'"),
        ("civitas_monitoring", {"heartbeat_secret": "https://hc.example.org/canary"}, "heartbeat_secret that is no name of a secret"),
        ("civitas_second_factor", "yes", "a text"),
        ("civitas_egress", "closed", "restricted"),
        ("civitas_bastion", "a b", "no name of a host"),
    ],
)
def test_bad_variables_of_the_way_in(name, value, problem):
    (found,) = rules.check_site_variables(host(**{name: value}), VARIABLES)
    assert found.variable == name
    assert problem in found.problem + found.remedy
    assert "canary" not in (found.problem + found.remedy).lower()


def test_good_variables_of_the_way_in():
    values = {"civitas_admin_networks": ["192.0.2.0/24", "2001:db8::1"], "civitas_people": [], "civitas_egress": "open"}
    values["civitas_announce_smtp"] = {**RELAY, "user": "logins", "password_secret": "announce_smtp_password", "port": 2525}
    values["civitas_announce_webhook"] = {"url_secret": "announce_webhook_url", "format": "slack"}
    values["civitas_data_volume"] = {"device": "LABEL=data", "initialize": True, "encryption": {"by": "operator"}, "swap_size": "2G"}
    values["civitas_restore_drill"] = {"hosts": ["records"], "schedule": "Sun *-*-* 04:00:00"}
    values["civitas_monitoring"] = {"page_users": ["anna"], "heartbeat_secret": "heartbeat_url", "probes": []}
    values.update(civitas_monitoring_mode="light", civitas_address="2001:db8::7", civitas_heartbeat_secret="heartbeat_url")
    assert rules.check_site_variables(host(**values), VARIABLES) == []


DELIVERED = {"civitas_certificate_source": "delivered", "civitas_certificate_files": ["a.pem"]}
ACME = {
    "civitas_certificate_source": "acme",
    "civitas_acme_directory": "https://acme.example.org/directory",
    "civitas_acme_email": "certificates@example.org",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"civitas_certificate_source": "internal"},
        DELIVERED,
        {**DELIVERED, "civitas_certificate_trust_file": "root.pem", "civitas_certificate_fetch_missing": True},
        ACME,
        {**ACME, "civitas_acme_challenge": "dns-01"},
        # An unknown source is told as a variable.
        {"civitas_certificate_source": "bought", "civitas_certificate_files": ["a.pem"]},
    ],
)
def test_variables_that_fit_the_source_of_the_certificate(changes):
    assert rules.check_certificate_variables(host(**changes), VARIABLES) == []


@pytest.mark.parametrize(
    ("changes", "variable", "problem", "remedy"),
    [
        (
            {"civitas_certificate_files": ["a.pem"]},
            "files",
            "is never used: civitas_certificate_source is 'internal'",
            ": delivered, or remove",
        ),
        (
            {**ACME, "civitas_certificate_trust_file": "a"},
            "trust_file",
            "is never used: civitas_certificate_source is 'acme'",
            ": delivered",
        ),
        ({**DELIVERED, "civitas_acme_email": "a@b.org"}, "email", "is never used", "Write civitas_certificate_source: acme, or remove"),
        (
            {**DELIVERED, "civitas_certificate_files": ...},
            "files",
            "is not set, and civitas_certificate_source is 'delivered'",
            "fullchain.pem",
        ),
        ({**ACME, "civitas_acme_directory": ...}, "directory", "is not set", "Write civitas_acme_directory: https://"),
        ({**ACME, "civitas_acme_email": ...}, "email", "is not set", "Write civitas_acme_email: "),
    ],
)
def test_variables_that_do_not_fit_the_source(changes, variable, problem, remedy):
    (found,) = rules.check_certificate_variables(host(**changes), VARIABLES)
    assert found.variable.endswith(f"_{variable}")
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize("max_age", [0, "0", -1, 0.0])
def test_browsers_are_told_to_refuse_plain_http(max_age):
    (found,) = rules.check_hsts("server", "qa", max_age)
    assert (found.variable, found.remedy) == ("nginx_hsts_max_age", "Remove the line for the default of one year.")
    assert rules.check_hsts("server", "development", max_age) == []


@pytest.mark.parametrize("max_age", [1, "31536000", "much", None, []])
def test_other_ages_of_hsts_are_no_concern_of_this_rule(max_age):
    assert rules.check_hsts("server", "production", max_age) == []


def test_hosts_exist():
    assert rules.check_hosts_exist([])[0].problem == "has no host"
    assert rules.check_hosts_exist([host()]) == []


def test_groups_have_hosts():
    (problem,) = rules.check_groups({"all": ["base"], "database": ["postgres"], "edge": ["nginx"]}, {"all": ["a"], "edge": ["a"]})
    assert (problem.variable, problem.problem) == ("database", "has no host, but postgres would run there")


def test_single_is_one_server():
    (problem,) = rules.check_single_server("single", [host(f"s{number}") for number in range(8)])
    assert problem.problem == "is 'single', one server, but there are 8: s0, s1, s2, s3, s4, 3 more"
    assert rules.check_single_server("national", [host("a"), host("b")]) == []


def test_single_may_have_a_bastion_in_front_of_its_server():
    gate = host("gate", groups=["bastion"])
    assert rules.check_single_server("single", [gate, host("a")]) == []
    (problem,) = rules.check_single_server("single", [gate, host("a"), host("b")])
    assert problem.problem == "is 'single', one server, but there are 2: a, b"
    (problem,) = rules.check_single_server("single", [gate])
    assert (problem.variable, problem.problem) == ("bastion", "has every host of the inventory, so there is no server")
    assert rules.check_single_server("single", [gate, host("watch", groups=["monitoring"]), host("a")]) == []


def test_a_bastion_does_nothing_else():
    tier = {"bastion": ["base", "access", "bastion"], "all": ["base", "nginx"], "database": ["base", "postgres"]}
    assert rules.roles_of(tier, ["bastion"], ()) == ["base", "access", "bastion"]
    assert rules.roles_of(tier, ["database", "bastion"], ()) == ["base", "access", "bastion"]
    assert rules.roles_of(tier, ["database"], ()) == ["base", "nginx", "postgres"]
    assert rules.roles_of(tier, [], ()) == ["base", "nginx"]
    assert rules.roles_of({"all": ["base"]}, ["bastion"], ()) == ["base"]


def test_some_roles_are_asked_for_by_a_variable_of_the_host():
    tier = {"bastion": ["bastion"], "all": ["base", "data_volume", "nginx"]}
    assert rules.roles_of(tier, [], ()) == ["base", "nginx"]
    assert rules.roles_of(tier, [], {"civitas_data_volume": {}}) == ["base", "data_volume", "nginx"]
    asked = host("a", civitas_data_volume={"device": "LABEL=data"})
    assert rules.check_variables_of_roles(asked, ["base", "data_volume"]) == rules.check_variables_of_roles(host("b"), []) == []
    (problem,) = rules.check_variables_of_roles(asked, ["bastion"])
    assert problem.variable == "civitas_data_volume" and "a host like this has no role data_volume" in problem.problem
    # Each host has a disk of its own.
    other = host("b", civitas_data_volume={"device": "LABEL=other"})
    assert rules.check_same_everywhere([asked, other], ["civitas_data_volume"]) == []


def test_a_host_that_drills_is_of_another_kind_and_drills_servers():
    server, store = host("records", civitas_environment="production"), host("vault", groups=["backup"])
    asked = {"civitas_environment": "staging", "civitas_restore_drill": {"hosts": ["records"]}}
    trial = host("trial", groups=["drill"], **asked)
    assert rules.check_drills([server, store, trial]) == rules.check_drills([server, store]) == rules.check_drills([server]) == []
    assert rules.check_same_everywhere([server, trial], ["civitas_environment"]) == []
    assert len(rules.check_same_everywhere([server, host("b", civitas_environment="staging")], ["civitas_environment"])) == 1

    def only(*hosts):
        (problem,) = rules.check_drills(hosts)
        return problem.where, problem.variable, problem.problem

    assert only(server, trial)[1:] == ("drill", "has trial, and the group backup has no host that would keep backups")
    assert "is not set" in only(server, store, host("trial", groups=["drill"], civitas_environment="staging"))[2]
    assert "must not lie beside what it opens" in only(host("records", **asked), store)[2]
    for name in ("vault", "trial", "nobody"):
        unknown = host("trial", groups=["drill"], civitas_environment="staging", civitas_restore_drill={"hosts": [name]})
        assert only(server, store, unknown)[2] == f"has '{name}', which is no server of this inventory"
    # Of invented data nothing is learned about a backup of true ones.
    assert "has records: " in only(host("records", civitas_environment="qa"), store, trial)[2]


def test_nor_does_who_watches():
    tier = {"bastion": ["bastion"], "monitoring": ["base", "monitoring"], "all": ["base", "nginx"]}
    assert rules.roles_of(tier, ["monitoring"], ()) == ["base", "monitoring"]
    groups = {"all": ["gate", "a", "watch", "b"], "bastion": ["gate"], "monitoring": ["watch"], "database": ["b"]}
    assert rules.servers_of(groups) == ["a", "b"]
    assert rules.servers_of({"all": ["a"]}) == ["a"]
    (problem,) = rules.check_single_purpose([host("a", groups=["database", "ungrouped"]), host("x", groups=["monitoring", "bastion"])])
    assert (problem.where, problem.problem) == ("x", "has bastion, monitoring, whose hosts do nothing else")


def test_a_site_may_have_no_bastion_and_nobody_who_watches():
    assert rules.check_groups({"bastion": ["bastion"], "monitoring": ["monitoring"], "all": ["base"]}, {"all": ["a"]}) == []


def test_who_watches_must_be_known_by_address():
    watch = host("watch", groups=["monitoring"], ansible_host="192.0.2.9")
    named, unnamed = host("a", ansible_host="a.example.org"), host("b", ansible_host=...)
    assert rules.check_cluster_addresses([named, unnamed]) == []
    found = rules.check_cluster_addresses([watch, named, unnamed, host("c", ansible_host="c", civitas_address="192.0.2.3")])
    assert [(problem.where, problem.variable) for problem in found] == [("a", "civitas_address"), ("b", "civitas_address")]
    assert "ansible_host, which stands in for it, is 'a.example.org': no address" in found[0].problem


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"recipients": ["age1"], "quota_gigabytes": 5}, None),
        ([], "is a list and not a mapping"),
        ({"recipients": [], "quota_gigabytes": 5}, "lacks recipients"),
        ({"recipients": ["age1"], "quota_gigabytes": 0.5}, "has the quota_gigabytes 0.5"),
        ({}, "lacks recipients and quota_gigabytes"),
        ({"recipients": ["age1"], "quota_gigabytes": 5, "scheduel": "daily"}, "did you mean schedule?"),
    ],
)
def test_what_is_said_of_backups(value, told):
    finding = rules.check_backup(value)
    assert finding is None if told is None else told in finding[0]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([{"name": "Head of registry", "does": "decides", "phone": "+15550100"}], None),
        ({"name": "x"}, "is a mapping and not a list"),
        ([{"does": "decides"}], "no mapping with a name"),
        ([{"name": "x", "phon": "1"}], "did you mean phone?"),
        ([{"name": "x", "phone": 15550100}], "is no text"),
    ],
)
def test_who_is_called_when_hosts_are_lost(value, told):
    finding = rules.check_contacts(value)
    assert finding is None if told is None else told in finding[0]


def test_who_keeps_backups_and_what_is_said_of_them_go_together():
    server, vault = host("server", civitas_backup={}), host("vault", groups=("backup",))
    silent = host("server")
    assert rules.check_backup_host([server, vault]) == rules.check_backup_host([silent]) == []
    assert "nobody could read a backup" in rules.check_backup_host([silent, vault])[0].problem
    assert "has no host that would keep them" in rules.check_backup_host([server])[0].problem


def test_which_of_two_hosts_copies_what_the_other_keeps():
    def judged(*hosts, **copy):
        named = {"civitas_backup": {}, **({"civitas_backup_copy": copy} if copy else {})}
        found = rules.check_backup_host([host(name, groups=groups, **named) for name, groups in hosts])
        assert len(found) < 2
        return found[0].problem + found[0].remedy if found else ""

    server, vault, second, third = ("server", ()), *((name, ("backup",)) for name in ("vault", "vault2", "vault3"))
    assert judged(server, vault) == judged(server, vault, second, host="vault2") == judged(server, vault, second, host="vault") == ""
    told = judged(server, vault, second)
    assert "has vault, vault2, and nothing says which" in told and "civitas_backup_copy: {host: vault2}" in told
    assert "which is no host of this inventory" in judged(server, vault, second, host="vault22")
    assert "which serves people or does something else" in judged(server, vault, second, host="server")
    assert "no other one that it could copy" in judged(server, vault, host="vault")
    assert "Leave two hosts" in judged(server, vault, second, third, host="vault2")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"host": "vault2"}, None),
        ({"host": "vault2", "schedule": "*-*-* 04:00:00", "bandwidth_kib": 500, "quota_gigabytes": 5, "retention": "7 days"}, None),
        ("vault2", "is a text and not a mapping"),
        ({}, "lacks host"),
        ({"host": ["vault2"]}, "lacks host"),
        ({"host": "vault2", "quota_gigabytes": "x"}, "has the quota_gigabytes 'x'"),
        ({"host": "vault2", "retention": "8 days"}, "has the retention '8 days'"),
        ({"host": "vault2", "retention": []}, "has the retention []"),
        ({"host": "vault2", "bandwith_kib": 1}, "did you mean bandwidth_kib?"),
    ],
)
def test_what_is_said_of_copies(value, told):
    finding = rules.check_backup_copy(value)
    assert finding is None if told is None else told in finding[0]


def test_what_makes_a_tier():
    server, gate = host("server"), host("gate", groups=("bastion",))
    assert rules.check_needed_groups("single", [server]) == []
    assert [problem.variable for problem in rules.check_needed_groups("tier4", [server, gate])] == ["monitoring", "backup"]


def test_each_host_that_judges_itself_has_a_sign_of_life_of_its_own():
    named = {"civitas_heartbeat_secret": "heartbeat_url"}
    records, gate = host("records", **named), host("gate", civitas_heartbeat_secret="gate_url")
    watch = host("watch", groups=["monitoring"], civitas_monitoring={"heartbeat_secret": "heartbeat_url"})
    assert rules.check_heartbeats([records, gate]) == []
    (shared,) = rules.check_heartbeats([records, host("gate", **named)])
    assert "heartbeat_url for records, gate: as long as one of them lives" in shared.problem
    (unused,) = rules.check_heartbeats([records, watch])
    assert (unused.where, unused.problem) == ("records", "is never used: the group monitoring judges this host")
    light = host("records", civitas_monitoring_mode="light", **named)
    (shared,) = rules.check_heartbeats([light, watch])
    assert "for the monitoring on watch, records" in shared.problem or "for records, the monitoring on watch" in shared.problem
    assert rules.check_heartbeats([host("records", civitas_heartbeat_secret="https://x")]) == []


def test_probes_tell_of_hosts_that_are_there():
    records, probe = host("records"), {"name": "far", "type": "icmp", "target": "198.51.100.7"}

    def found(**changes):
        watch = host("watch", civitas_monitoring={"probes": [{**probe, **changes}]})
        return rules.check_probe_hosts(watch, [watch, records])

    assert found() == [] == found(host="records") == found(host="")
    (wrong,) = found(host="recrods")
    assert "the probe 'far', whose host is 'recrods', which is no host" in wrong.problem and wrong.remedy == "Write records."
    (wrong,) = found(host=["elsewhere"])
    assert "or leave host out" in wrong.remedy
    assert rules.check_probe_hosts(host(civitas_monitoring={"probes": "x"}), [records]) == []


def test_nobody_is_watched_where_nobody_watches():
    assert rules.check_unwatched(host(civitas_monitoring_mode="light")) is None
    assert rules.check_unwatched(host(civitas_monitoring_mode="full"))[0] == "civitas_monitoring_mode"
    assert rules.check_unwatched(host(civitas_monitoring={"page_users": ["anna"]}))[0] == "civitas_monitoring"


@pytest.mark.parametrize(
    ("named", "problem", "remedy"),
    [
        ("gaet", "is 'gaet', which is no host of this inventory", "Did you mean gate? Add the bastion."),
        (
            "b",
            "is 'b', which is a server like any other",
            "Put b into the group bastion; it lets people through then and does nothing else.",
        ),
    ],
)
def test_the_way_leads_through_a_bastion_that_exists(named, problem, remedy):
    hosts = [host("gate", groups=["bastion"]), host("a"), host("b")]
    (found,) = rules.check_bastion(host("a", civitas_bastion=named), hosts)
    assert (found.where, found.variable, found.problem, found.remedy) == ("a", "civitas_bastion", problem, remedy)
    assert rules.check_bastion(host("a", civitas_bastion="gate"), hosts) == []
    assert rules.check_bastion(host("a", civitas_bastion=""), hosts) == []
    # Told by the rule of the variable itself.
    assert rules.check_bastion(host("a", civitas_bastion="no such\nname"), hosts) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"ansible_host": "192.0.2.1"}, {"ansible_host": "192.0.2.1"}, True),
        ({"ansible_host": "192.0.2.1", "ansible_port": 22}, {"ansible_host": "192.0.2.1", "ansible_port": "22"}, True),
        ({"ansible_host": "DB.example.org"}, {"ansible_host": "db.example.org"}, True),
        ({"ansible_host": "192.0.2.1", "ansible_port": 2222}, {"ansible_host": "192.0.2.1", "ansible_port": 2223}, False),
        ({"ansible_host": "192.0.2.1"}, {"ansible_host": "192.0.2.2"}, False),
        ({"ansible_host": ...}, {"ansible_host": ...}, False),
        ({"ansible_host": ...}, {"ansible_host": "a"}, True),
    ],
)
def test_one_machine_twice(one, other, same):
    found = rules.check_addresses([host("a", **one), host("b", **other)])
    assert bool(found) == same
    if same:
        assert found[0].where == "a, b"


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"ansible_connection": "local"}, True),
        ({"ansible_connection": "ansible.builtin.local"}, True),
        ({"ansible_host": "127.0.0.1"}, True),
        ({"ansible_host": "127.9.9.9", "ansible_port": 22}, True),
        ({"ansible_host": "::1"}, True),
        ({"ansible_host": "localhost"}, True),
        ({"name": "localhost", "ansible_host": ...}, True),
        ({"ansible_host": "127.0.0.1", "ansible_port": 2222}, False),
        ({"ansible_host": "localhost", "ansible_connection": "community.docker.docker"}, False),
        ({"ansible_host": "192.0.2.1"}, False),
        ({"ansible_host": "local.example.org"}, False),
    ],
)
def test_the_control_node_is_another_machine(changes, refused):
    assert bool(rules.check_control_node(host(**changes))) == refused


def test_a_directory_of_inventories_does_not_hold_the_secrets(tmp_path):
    path = str(tmp_path / "secrets.yml")
    (problem,) = rules.check_inventory_sources([str(tmp_path)], path)
    assert problem.remedy.endswith("hosts.yml")
    assert rules.check_inventory_sources([str(tmp_path / "hosts.yml")], path) == []
    assert rules.check_inventory_sources([str(tmp_path)], path, ["secrets"]) == []
    assert rules.check_inventory_sources([str(tmp_path)], str(tmp_path / ".secrets.yml")) == []
    assert rules.check_inventory_sources([str(tmp_path)], str(tmp_path / "other" / "secrets.yml")) == []


def test_the_vault_password_is_its_owners(tmp_path):
    path = tmp_path / "password"
    path.write_text("x")
    for mode, refused in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        path.chmod(mode)
        found = rules.check_password_files([str(path), str(tmp_path / "none"), os.devnull])
        assert bool(found) == refused
    assert found[0].remedy == f"Run chmod 600 {path}"


def test_an_artifact_that_is_there(tmp_path):
    path = tmp_path / "image.tar.gz"
    path.write_bytes(b"x" * 3_000_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert rules.check_artifact("server", "app_demo_archive", str(path), sha256) == []


@pytest.mark.parametrize(
    ("file", "sha256", "problem", "remedy"),
    [
        ("{}/none.tar.gz", 64 * "0", "there is no such file on this machine", "Put the file there"),
        ("{}", 64 * "0", "not a file", "Put the file there"),
        ("image.tar.gz", 64 * "0", "not known where such a path begins", 'such as "{{ inventory_dir }}/image.tar.gz"'),
        ("{}/image.tar.gz", "", "with no checksum", "sha256sum {}/image.tar.gz"),
        ("{}/image.tar.gz", None, "with no checksum", "sha256sum {}/image.tar.gz"),
        ("{}/image.tar.gz", 64 * "A", "which is no sha256", "64 digits"),
        ("{}/image.tar.gz", 64 * "0" + "\n", "which is no sha256", "64 digits"),
        ("{}/image.tar.gz", 64 * "0", "is damaged or another file", "Fetch it again"),
        (5, 64 * "0", "is 5, a number and not a text", "path of a file"),
        ("/a\n", 64 * "0", "a line break", "path of a file"),
        ("/" + 10_000 * "x", 64 * "0", "(10001 characters): there is no such file", "Put the file there"),
    ],
)
def test_artifacts_that_cannot_be_used(tmp_path, file, sha256, problem, remedy):
    (tmp_path / "image.tar.gz").write_bytes(b"an image")
    path = file.replace("{}", str(tmp_path)) if isinstance(file, str) else file
    (found,) = rules.check_artifact("server", "app_demo_archive", path, sha256)
    assert (found.where, found.variable) == ("server", "app_demo_archive")
    assert problem in found.problem
    assert remedy.replace("{}/", f"{tmp_path}/") in found.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_artifact_that_may_not_be_read(tmp_path):
    path = tmp_path / "image.tar.gz"
    path.touch(0o000)
    (found,) = rules.check_artifact("server", "app_demo_archive", str(path), 64 * "0")
    assert "may not read" in found.problem


def port(role, number=443, protocol="tcp", addresses=("0.0.0.0",)):
    return {"role": role, "name": "x", "port": number, "protocol": protocol, "addresses": list(addresses)}


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (port("a"), port("b"), True),
        (port("a"), port("b", addresses=["127.0.0.1"]), True),
        (port("a"), port("b", addresses=["::"]), True),
        (port("a", addresses=["*"]), port("b", addresses=["127.0.0.1"]), True),
        (port("a", addresses=["[::1]"]), port("b", addresses=["::1"]), True),
        (port("a", addresses=["localhost"]), port("b", addresses=["127.0.0.1"]), True),
        (port("a", addresses=["127.0.0.1", "10.0.0.1"]), port("b", addresses=["10.0.0.1"]), True),
        (port("a", addresses=["127.0.0.1"]), port("b", addresses=["10.0.0.1"]), False),
        (port("a"), port("b", addresses=["::1"]), False),
        (port("a"), port("b", protocol="udp"), False),
        (port("a"), port("b", number=444), False),
    ],
)
def test_ports(one, other, clash):
    found = rules.check_ports("server", [one, other])
    assert bool(found) == clash
    if clash:
        assert found[0].problem == "is declared by a (x) and by b (x) on the same address"


def test_the_same_problem_is_told_once():
    problems = [Problem(name, "v", "is bad", "Write better.") for name in ("a", "b")] + [Problem("a", "w", "is bad", "Write better.")]
    merged = rules.merge(problems, ["a", "b"])
    assert [(problem.where, problem.variable) for problem in merged] == [("all hosts", "v"), ("a", "w")]
    assert rules.merge(problems[:2], ["a", "b", "c"])[0].where == "a, b"


def test_the_report():
    text = rules.report(
        [Problem("server", "civitas_domain", "is bad", "Write better.", "hosts.yml:3"), Problem("server", "x", "is bad", "Write better.")]
    )
    assert text == (
        "The inventory has 2 problems. No host was contacted, nothing was changed.\n\n"
        " 1. server: civitas_domain  (hosts.yml:3)\n    is bad\n    -> Write better.\n\n"
        " 2. server: x\n    is bad\n    -> Write better."
    )
