# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to a host is measured, at little cost, and shown to nobody but the monitoring host."""

from __future__ import annotations

import re
import socket
import time

import pytest

METRICS = "/var/lib/civitas/metrics/host.prom"
CERTIFICATES = "/etc/civitas/certificates"
EXPORTERS = ["node", "exporter", "postgres", "nginx"]


@pytest.fixture
def full(host):
    """Whether a monitoring host asks this one."""
    return host.file("/etc/civitas/exporters.yml").exists


@pytest.fixture
def asked(full):
    if not full:
        pytest.skip("this host judges itself")


def read(host):
    """Series, such as civitas_unit_failed{unit="x.service"}, to values."""
    lines = host.file(METRICS).content_string.splitlines()
    return {series: float(value) for series, _space, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def measure(host):
    # To start what is under way is to wait for it, and it may have looked before.
    host.check_output("while systemctl is-active civitas-metrics.service | grep --quiet activating; do sleep 0.1; done")
    host.check_output("systemctl start civitas-metrics.service")
    return read(host)


def test_the_timer_measures(host):
    assert host.service("civitas-metrics.timer").is_running and host.service("civitas-metrics.timer").is_enabled
    deadline = time.monotonic() + 20
    while not host.file(METRICS).exists and time.monotonic() < deadline:
        time.sleep(1)
    assert -1 <= float(host.check_output("date +%s")) - read(host)["civitas_collected_time_seconds"] <= 75


def test_who_judges_itself_does_so_without_measurements_too(host, full):
    timer = host.service("civitas-alerts.timer")
    assert timer.exists is not full
    assert full or (timer.is_running and timer.is_enabled)


def test_nothing_failed_and_nothing_is_said(host):
    found = measure(host)
    parts = {series: value for series, value in found.items() if series.startswith("civitas_collect_failed{")}
    assert len(parts) == 13 and not any(parts.values()), parts


def test_what_is_always_there(host):
    found = measure(host)
    assert 0 < found['civitas_mount_used_ratio{mountpoint="/"}'] < 1
    assert 0 < found["civitas_memory_available_ratio"] <= 1
    assert 0 <= found["civitas_cpu_busy_ratio"] <= 1
    assert found["civitas_updates_security_pending"] >= 0
    assert found['civitas_mount_writable{mountpoint="/"}'] == 1
    assert found['civitas_support_ends_time_seconds{component="Relic 1"}'] == 1583020800
    assert any(re.match(r'civitas_support_ends_time_seconds\{component="(Debian|Ubuntu) [0-9.]+"\}', series) for series in found)


@pytest.fixture
def small(host):
    host.check_output("mkdir -p /srv/small && mount -t tmpfs -o size=10M,nr_inodes=100 small /srv/small")
    yield "/srv/small"
    host.run("umount /srv/small")


def test_a_disk_that_fills_up(host, small):
    series = f'civitas_mount_used_ratio{{mountpoint="{small}"}}'
    seen = []
    for size in (0, 52, 72):
        host.check_output(f"head -c {size * 1024 * 1024 // 10} /dev/zero > {small}/file")
        seen.append(measure(host)[series])
    assert seen[0] < 0.01 and 0.51 <= seen[1] < 0.54 and 0.71 <= seen[2] < 0.74, seen
    host.check_output(f"rm {small}/file")
    assert measure(host)[series] < 0.01


def test_a_disk_with_many_files(host, small):
    host.check_output(f"touch $(seq -f {small}/%g 71)")
    assert 0.71 <= measure(host)[f'civitas_mount_inodes_used_ratio{{mountpoint="{small}"}}'] <= 0.73


def test_a_disk_that_went_read_only(host, small):
    series = f'civitas_mount_writable{{mountpoint="{small}"}}'
    assert measure(host)[series] == 1
    host.check_output(f"mount -o remount,ro {small}")
    assert measure(host)[series] == 0


def test_a_disk_that_is_missing(host, small):
    assert measure(host)['civitas_expected_mount{mountpoint="/srv/small"}'] == 1
    host.check_output(f"umount {small}")
    found = measure(host)
    assert found['civitas_expected_mount{mountpoint="/srv/small"}'] == 0
    assert 'civitas_mount_used_ratio{mountpoint="/srv/small"}' not in found


def test_a_unit_that_was_stopped(host):
    series = 'civitas_unit_running{unit="story.service"}'
    assert measure(host)[series] == 1
    host.check_output("systemctl stop story.service")
    assert measure(host)[series] == 0
    host.check_output("systemctl start story.service")
    assert measure(host)[series] == 1


def test_a_unit_that_failed(host):
    host.run("systemd-run --wait --unit=broken.service /bin/false")
    found = measure(host)
    assert (found['civitas_unit_failed{unit="broken.service"}'], found["civitas_units_failed"]) == (1, 1)
    host.check_output("systemctl reset-failed broken.service")
    found = measure(host)
    assert 'civitas_unit_failed{unit="broken.service"}' not in found and found["civitas_units_failed"] == 0


def test_the_clock_is_what_chrony_says(host):
    found = measure(host)
    assert found["civitas_clock_synchronised"] == 1 and 0 <= found["civitas_clock_offset_seconds"] < 5
    host.check_output("systemctl stop chrony")
    found = measure(host)
    host.check_output("systemctl start chrony")
    assert "civitas_clock_synchronised" in found and "civitas_clock_offset_seconds" not in found


def test_a_reboot_that_is_due(host):
    host.check_output("touch /run/reboot-required")
    since = measure(host)["civitas_reboot_required_time_seconds"]
    # Another reason does not make it younger.
    host.check_output("touch /run/reboot-required")
    assert measure(host)["civitas_reboot_required_time_seconds"] == since
    host.check_output("rm /run/reboot-required")
    assert "civitas_reboot_required_time_seconds" not in measure(host)


def test_a_part_that_fails_takes_nothing_with_it(host):
    def told():
        return host.check_output("journalctl --sync; journalctl -u civitas-metrics.service -o cat").count("people: JSONDecodeError")

    before = told()
    host.check_output("echo '{' > /etc/civitas/access.json")
    try:
        for _time in range(2):
            found = measure(host)
        assert found['civitas_collect_failed{topic="people"}'] == 1
        assert sum(value for series, value in found.items() if series.startswith("civitas_collect_failed{")) == 1
        assert 'civitas_mount_used_ratio{mountpoint="/"}' in found
        assert told() - before == 1
        assert host.check_output("systemctl show -P Result civitas-metrics.service") == "success"
    finally:
        host.check_output("rm /etc/civitas/access.json")
    assert measure(host)['civitas_collect_failed{topic="people"}'] == 0


def test_a_disk_that_fills_at_once_is_told_of(host):
    host.check_output(
        "mkdir -p /srv/metrics && mount -t tmpfs -o size=64k metrics /srv/metrics && cp %s /srv/metrics/"
        " && mount --bind /srv/metrics /var/lib/civitas/metrics",
        METRICS,
    )
    try:
        assert measure(host)['civitas_mount_used_ratio{mountpoint="/srv/metrics"}'] < 0.5
        assert host.run("cp /dev/zero /srv/metrics/filler").rc != 0
        assert measure(host)['civitas_mount_used_ratio{mountpoint="/srv/metrics"}'] == 1
        assert host.check_output("ls -A /var/lib/civitas/metrics").split() == ["filler", "host.prom"]
    finally:
        host.check_output("umount /var/lib/civitas/metrics && umount /srv/metrics")
    assert 'civitas_mount_used_ratio{mountpoint="/srv/metrics"}' not in measure(host)


def test_it_costs_little(host):
    script = (
        "import resource, subprocess; subprocess.run(['/usr/local/sbin/civitas-metrics'], check=True); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    measure(host)
    seconds, kilobytes = map(float, host.check_output("python3 -c %s", script).split())
    print(f"{seconds:.3f} s of a processor, {kilobytes / 1024:.1f} MiB")
    # Of a minute, on a machine that other tests keep busy.
    assert seconds < 0.6
    assert kilobytes < 30 * 1024


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (METRICS, 0o644),
        ("/var/lib/civitas/metrics.json", 0o600),
        ("/usr/local/sbin/civitas-metrics", 0o755),
    ],
)
def test_only_root_writes(host, path, mode):
    found = host.file(path)
    assert (found.user, found.group, found.mode) == ("root", "root", mode)


def test_nothing_is_resident_where_the_host_judges_itself(host, full):
    running = host.check_output("ps -eo args")
    assert ("/usr/bin/prometheus-" in running) == full
    assert "civitas-metrics" not in running


# --- a host that judges itself


def chat(host):
    """Everything that the chat was told."""
    return host.run("cat /srv/sink/chat.jsonl").stdout


@pytest.fixture
def alone(full):
    if full:
        pytest.skip("a monitoring host judges this one")


@pytest.mark.usefixtures("alone")
def test_it_tells_what_it_found(host, small):
    host.check_output(f"mount -o remount,ro {small}")
    # It may have been told of an earlier test's, so what rings now counts as well.
    for _attempt in range(30):
        measure(host)
        status = host.run("civitas-alerts status")
        if "/srv/small went read-only" in chat(host) and "/srv/small" in status.stdout + status.stderr:
            break
        time.sleep(1)
    said = chat(host)
    assert "/srv/small went read-only" in said and "Relic 1 gets no security updates any more" in said, said
    assert status.rc == 1 and "/srv/small" in status.stdout + status.stderr, status


@pytest.mark.usefixtures("alone")
def test_the_secret_of_the_chat_is_in_one_file_only(host):
    found = host.file("/etc/civitas/alerts.json")
    assert (found.user, found.mode) == ("root", 0o600)
    assert host.run("grep -rlF canary-webhook-token /etc /root /run /tmp /usr/local /var/lib /var/log").stdout.split() == [found.path]
    assert host.run("journalctl --no-pager | grep -F canary-webhook-token").stdout == ""


# --- the monitoring host


def scrape(host, *options, module="node", name=""):
    """What curl says, as the monitoring host on this host."""
    name = name or host.check_output("openssl x509 -noout -ext subjectAltName -in %s/monitoring/fullchain.pem", CERTIFICATES)
    name = name.rpartition("DNS:")[2] or name
    command = f"curl -sS --cacert /etc/civitas/ca.pem --resolve {name}:9998:127.0.0.1 {' '.join(options)}"
    return host.run(f"{command} 'https://{name}:9998/proxy?module={module}'")


def as_client(name):
    return ("--cert", f"{CERTIFICATES}/{name}/fullchain.pem", "--key", f"{CERTIFICATES}/{name}/key.pem")


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("module", "series"),
    [
        ("node", 'civitas_mount_used_ratio{mountpoint="/"}'),
        ("node", "node_textfile_scrape_error 0"),
        ("postgres", "pg_up 1"),
        ("nginx", "nginx_up 1"),
    ],
)
def test_the_monitoring_host_gets_everything(host, module, series):
    said = scrape(host, *as_client("right"), module=module)
    assert said.rc == 0 and series in said.stdout, said


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    "options",
    [
        (),
        as_client("stranger"),
        # The host's own certificate is the CA's as well.
        as_client("monitoring"),
        (*as_client("right"), "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0"),
    ],
    ids=["no certificate", "another name", "the host's own", "TLS 1.1"],
)
def test_nobody_else_gets_anything(host, options):
    said = scrape(host, *options)
    assert said.rc in (35, 56) and "civitas" not in said.stdout, said


@pytest.mark.usefixtures("asked")
def test_there_is_no_answer_without_tls(host):
    said = host.run("curl -sS http://127.0.0.1:9998/proxy?module=node")
    assert "civitas_" not in said.stdout and "HTTPS" in said.stdout


@pytest.mark.usefixtures("asked")
def test_the_right_certificate_at_another_address_gets_nothing(host):
    address = host.check_output("hostname -I").split()[0]
    name = host.check_output("openssl x509 -noout -ext subjectAltName -in %s/monitoring/fullchain.pem", CERTIFICATES).rpartition("DNS:")[2]
    command = f"curl -sS --cacert /etc/civitas/ca.pem --resolve {name}:9998:{address} {' '.join(as_client('right'))}"
    said = host.run(f"{command} 'https://{name}:9998/proxy?module=node'")
    assert "civitas_" not in said.stdout, said


@pytest.mark.usefixtures("asked")
def test_exporters_listen_on_loopback_only(host):
    lines = host.check_output("ss -Hltn 'sport = :9100 or sport = :9113 or sport = :9187 or sport = :9998 or sport = :9999'").splitlines()
    assert sorted(line.split()[3] for line in lines) == ["*:9998", "127.0.0.1:9100", "127.0.0.1:9113", "127.0.0.1:9187"]
    address = host.check_output("hostname -I").split()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 9100), timeout=10)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("name", EXPORTERS)
def test_exporters_run_and_start_at_boot(host, name):
    unit = host.service(f"prometheus-{name}-exporter.service")
    assert unit.is_running and unit.is_enabled


@pytest.mark.usefixtures("asked")
def test_the_database_is_asked_without_a_password_and_as_nobody_special(host):
    asked = "select rolsuper, rolcreaterole, rolpassword is null, pg_has_role(oid, 'pg_monitor', 'member') from pg_authid"
    assert host.check_output("runuser -u postgres -- psql -XAtq -c %s", f"{asked} where rolname = 'prometheus'") == "f|f|t|t"


@pytest.mark.usefixtures("asked")
def test_the_certificate_is_seen_by_its_watch(host):
    said = host.run("civitas-certificates status")
    assert said.rc == 0 and ":9998" in said.stdout, said


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
