# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left after test data were removed: the schema, the settings, the application that runs, and no secret in a history."""

from __future__ import annotations

import json

import testinfra

testinfra_hosts = ["ansible://servers"]


def sql(host, query):
    return host.check_output(f"cd / && runuser -u postgres -- psql -XAt -d records -c '{query}'")


def test_rows_are_gone_and_migrations_stay(host):
    assert sql(host, "SELECT count(*) FROM people") == "0"
    assert sql(host, "SELECT v FROM schema_migrations") == "1"


def test_files_are_gone_and_a_record_of_a_person_is_not_emptied(host):
    assert not host.file("/srv/records/documents/2026").exists
    assert host.file("/srv/records/documents/templates/letter").exists
    assert host.file("/srv/records/documents/record").content_string == "of a person"


def test_the_backups_of_the_tests_are_gone_and_one_of_the_clean_state_is_there(host):
    variables = host.ansible.get_variables()
    store = testinfra.get_host(f"docker://{variables['groups']['stores'][0]}")
    name = variables["inventory_hostname"].split("-")[-1]
    found = json.loads(store.run("civitas-store status --json").stdout)["hosts"][name]["sets"]
    assert [one["good"] for one in found] == [True]
    kept = f"/srv/backup/hosts/{name}"
    (clean,) = store.check_output(f"ls {kept}/sets").split()
    manifest = json.loads(store.file(f"{kept}/sets/{clean}/manifest.json").content_string)
    sources = {one["name"]: one for one in manifest["sources"]}
    assert sources["main"]["databases"][0]["rows"]["public.people"] == 0
    # The one that came with the role, and the last one, which the reset has made before it emptied anything.
    gone = store.check_output(f"ls {kept}/removed").split()
    assert len(gone) == 2 and max(gone) < clean
    emptied = json.loads(host.file("/var/lib/civitas/reset.json").content_string)["emptied"]
    moment = host.check_output(f"date --utc --date @{emptied} +%Y%m%dT%H%M%SZ")
    assert max(gone) < moment <= clean


def test_the_application_runs_again_and_its_index_was_emptied_once(host):
    assert host.service("records.service").is_running
    assert len(host.file("/srv/index-emptied").content_string.splitlines()) == 1


def test_histories_hold_no_secret(host):
    history = host.file("/home/clerk/.bash_history")
    assert history.content_string == "ls\ndate\n"
    assert (history.user, history.mode) == ("clerk", 0o600)


def test_the_host_remembers_the_day_and_tells_no_secret(host):
    record = host.file("/var/lib/civitas/reset.json").content_string
    assert json.loads(record)["going_live"] and "abcdef123" not in record
    assert host.run("journalctl --no-pager | grep -F abcdef123").rc == 1
