# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives of the past on a host: read, extracted by the playbook, and restored beside the database that is there."""

from __future__ import annotations

PASSPHRASE = "a test passphrase"
FOLDER = "/srv/past"
ARCHIVES = [f"{FOLDER}/{store}_backup_2026-03-01.tar.gz.enc" for store in ("minio", "postgres")]
WITHOUT = "--without mongo_backup_2026-03-01.tar.gz.enc --without influxdb_backup_2026-03-01.tar.gz.enc"


def verify(host, *archives, passphrase=PASSPHRASE, more=""):
    return host.run(f"echo '{passphrase}' | civitas-import verify {' '.join(archives)} --passphrase-file - {more}")


def is_first(host):
    variables = host.ansible.get_variables()
    return variables["inventory_hostname"] == variables["groups"]["all"][0]


def test_archives_are_verified(host):
    found = verify(host, *ARCHIVES, more=WITHOUT)
    assert found.rc == 0, found.stderr
    assert "1234 rows in 1 tables" in found.stdout and "proves no more" in found.stdout
    assert "missing: mongo_backup_2026-03-01.tar.gz.enc" in verify(host, *ARCHIVES).stderr


def test_a_wrong_passphrase_and_a_damaged_archive_are_refused(host):
    assert "passphrase is wrong" in verify(host, ARCHIVES[0], passphrase="another").stderr
    host.check_output(f"mkdir -p /srv/cut && head -c -4096 {ARCHIVES[0]} > /srv/cut/minio_backup_2026-03-01.tar.gz.enc")
    found = verify(host, "/srv/cut/minio_backup_2026-03-01.tar.gz.enc", more=WITHOUT)
    assert found.rc == 1 and "DAMAGED" in found.stderr


def test_the_playbook_has_extracted_on_one_host_only(host):
    assert host.file("/srv/imported").exists == is_first(host)
    if is_first(host):
        assert host.file("/srv/imported").mode == 0o700
        host.check_output("cmp /srv/imported/minio/ocrvs/scan.jpg /srv/minio/ocrvs/scan.jpg")


def test_a_dump_is_restored_beside_the_database(host):
    source = "/srv/imported/postgres" if is_first(host) else "/srv/postgres"
    host.run("runuser -u postgres -- dropdb --if-exists imported")
    found = host.run(f"civitas-import restore {source}/events.dump --database imported")
    assert found.rc == 0, found.stderr
    assert "app.events: 1234 rows" in found.stdout
    count = "cd / && runuser -u postgres -- psql -XAt -d {} -c 'SELECT count(*) FROM app.events'"
    assert host.check_output(count.format("imported")) == host.check_output(count.format("events")) == "1234"
    again = host.run(f"civitas-import restore {source}/events.dump --database events")
    assert again.rc == 1 and "already" in again.stderr


def test_the_passphrase_is_in_no_log(host):
    assert host.run(f"journalctl --no-pager | grep -F '{PASSPHRASE}'").rc == 1
