# SPDX-License-Identifier: GPL-3.0-or-later
"""What befalls installations, on a host with a real nginx: stories.py PKI_DIRECTORY SWAPS. Each story begins with a pair that is served."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PKI, SWAPS = Path(sys.argv[1]), int(sys.argv[2])
WORK = Path("/srv/stories")
STORE = WORK / "store"
CONFIG = WORK / "certificates.json"
ALERTS = WORK / "alerts"
SITE = Path("/etc/nginx/sites-enabled/stories")
DROP_IN = Path("/run/systemd/system/nginx.service.d/stories.conf")
PORT = 8443


def run(*command: str | Path, expect: int | None = 0, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert expect is None or done.returncode == expect, f"{command}: {done.returncode}, not {expect}: {done.stdout}"
    return done.stdout


def configure(store: Path = STORE, **changes: Any) -> None:
    """What the program is told of the certificate; C(changes) for one story only."""
    story = {
        "name": "story",
        "hosts": ["records.test"],
        "reload_units": ["nginx.service"],
        "verify": ["/usr/sbin/nginx -t"],
        "endpoints": [{"host": "127.0.0.1", "port": PORT, "server_name": "records.test"}],
        "trust_file": str(PKI / "root.pem"),
        **changes,
    }
    document = {
        "store": str(store),
        "state_file": str(WORK / "watch.json"),
        "metrics_file": str(WORK / "certificates.prom"),
        "days": [30, 14, 7, 1],
        "critical_days": 7,
        "alert_command": ["/bin/sh", "-c", f"cat >> {ALERTS}"],
        "patience": 2,
        "certificates": [story],
    }
    CONFIG.write_text(json.dumps(document))


def program(*arguments: str, expect: int | None = 0, **environment: str) -> str:
    return run("/usr/local/sbin/civitas-certificates", "--config", CONFIG, *arguments, expect=expect, **environment)


def install(pair: str, expect: int | None = 0, key: str = "", **environment: str) -> str:
    files = ["--chain", str(PKI / f"{pair}.pem"), "--key", str(PKI / f"{key or pair}.key")]
    return program("install", "story", *files, expect=expect, **environment)


def fingerprint(pem: str) -> str:
    first = pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).hexdigest()


def served() -> str:
    """The pair that a new connection gets, by the name of its files."""
    context = ssl.create_default_context(cafile=str(PKI / "root.pem"))
    context.check_hostname = False
    plain = socket.create_connection(("127.0.0.1", PORT), 5)
    with context.wrap_socket(plain, server_hostname="records.test") as connection:
        return name_of(hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest())


def name_of(wanted: str) -> str:
    return next((path.stem for path in sorted(PKI.glob("*.pem")) if fingerprint(path.read_text()) == wanted), wanted)


def linked(store: Path = STORE) -> str:
    return name_of(fingerprint((store / "story" / "fullchain.pem").read_text()))


def wait_until_served(pair: str) -> None:
    """nginx reloads after the command for it has returned, and workers that are being replaced still answer for a moment."""
    seen: list[str] = []
    for _attempt in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            seen.append(served())
        if seen[-5:] == [pair] * 5:
            return
        time.sleep(0.05)
    raise AssertionError(f"{pair} is not served, but {seen[-5:]}")


def is_settled(pair: str, store: Path = STORE) -> None:
    """The pair is linked and served, and nothing is left of any change."""
    wait_until_served(pair)
    assert linked(store) == pair, (linked(store), pair)
    inner = store / "story" / ".generations"
    left = [entry.name for entry in inner.iterdir() if not entry.name.isdigit() and entry.name != "history"]
    assert not left, left
    assert len([entry for entry in inner.iterdir() if entry.is_dir()]) <= 3, list(inner.iterdir())
    assert oct((store / "story" / "key.pem").stat().st_mode & 0o7777) == "0o600"


def site(directory: Path = STORE / "story", certificate: str = "fullchain.pem", key: str = "key.pem") -> None:
    SITE.write_text(
        f"server {{ listen {PORT} ssl; server_name records.test; ssl_certificate {directory / certificate};"
        f' ssl_certificate_key {directory / key}; location / {{ default_type text/plain; return 200 "records\\n"; }} }}\n'
    )


@contextlib.contextmanager
def reload_command(command: str) -> Iterator[None]:
    """Another command than nginx's own behind 'systemctl reload nginx'."""
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nExecReload=\nExecReload={command}\n")
    run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        DROP_IN.unlink()
        run("systemctl", "daemon-reload")


# --- the stories --------------------------------------------------------------------------------------------------------------------


def the_first_pair_waits_for_its_users() -> None:
    assert "the first pair" in install("first")
    site()
    run("systemctl", "reload-or-restart", "nginx.service")
    is_settled("first")
    assert "300" in program("status")
    assert "nothing changed" in install("first")


def no_request_fails_while_pairs_are_swapped_under_load() -> None:
    load = subprocess.Popen(
        [sys.executable, "/srv/load.py", str(PKI / "root.pem"), str(PORT), "records.test"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    began = time.monotonic()
    for number in range(SWAPS):
        install("second" if number % 2 else "third")
    seconds = time.monotonic() - began
    out, _err = load.communicate(b"")
    counted = json.loads(out)
    print(f"  {SWAPS} swaps in {seconds:.0f} s, {counted}")
    assert counted["failures"] == 0
    assert counted["fresh"] > SWAPS
    assert counted["kept"] > SWAPS
    # The clients really met the swaps.
    assert counted["changes_seen"] >= SWAPS
    assert {name_of(one) for one in counted["seen"]} == {"first", "second", "third"}


def what_the_host_refuses_changes_nothing() -> None:
    for pair, key, why in (
        ("third", "second", "does not belong to the key"),
        ("strange", "strange", "openssl verify"),
        ("database", "database", "hostname mismatch"),
    ):
        assert why in install(pair, key=key, expect=1).lower(), pair
        is_settled("first")


def a_configuration_that_nginx_refuses_takes_the_pair_back() -> None:
    broken = SITE.with_name("broken")
    broken.write_text("server { no_such_directive; }\n")
    said = install("second", expect=1)
    broken.unlink()
    assert "no_such_directive" in said, said
    assert linked() == served() == "first"
    # With the broken file nobody could be told that the old pair is back either; the watch does so now.
    assert "told now" in program("watch")
    is_settled("first")


def another_judge_takes_the_pair_back() -> None:
    configure(verify=[f"/usr/bin/cmp --quiet {STORE}/story/fullchain.pem {PKI}/first.pem"])
    said = install("second", expect=1)
    assert "The pair from before is in use again, seen on 127.0.0.1:8443 as records.test" in said, said
    is_settled("first")


def a_reload_without_effect_is_seen_on_the_wire() -> None:
    with reload_command("/bin/true"):
        said = install("second", expect=1)
    assert "presents another certificate" in said and "is in use again, seen on" in said, said
    is_settled("first")


def a_reload_that_fails_takes_the_pair_back() -> None:
    with reload_command("/bin/false"):
        said = install("second", expect=1)
        assert "systemctl reload nginx.service" in said, said
        assert (linked(), served()) == ("first", "first")
        program("watch", expect=1)
    program("watch")
    is_settled("first")


def a_site_that_serves_another_file_is_seen_on_the_wire() -> None:
    site(PKI, "third.pem", "third.key")
    said = install("second", expect=1)
    assert "127.0.0.1:8443 as records.test presents another certificate" in said, said
    assert "the next run or the watch tries again" in said, said
    assert linked() == "first"
    wait_until_served("third")
    site()
    assert "told now" in program("watch")
    is_settled("first")


def killed_before_the_swap() -> None:
    judge = WORK / "bin" / "openssl"
    judge.parent.mkdir(exist_ok=True)
    judge.write_text('#!/bin/sh\n[ "$1" = verify ] && kill -KILL $PPID\nexec /usr/bin/openssl "$@"\n')
    judge.chmod(0o755)
    install("second", expect=-signal.SIGKILL, PATH=f"{judge.parent}:{os.environ['PATH']}")
    assert (linked(), served()) == ("first", "first")
    assert "cut off before it changed anything" in program("watch")
    is_settled("first")


def killed_between_swap_and_reload() -> None:
    configure(verify=["/bin/sh -c 'kill -KILL $PPID'"])
    install("second", expect=-signal.SIGKILL)
    assert (linked(), served()) == ("second", "first")
    configure()
    assert "its pair is proven now" in program("watch")
    is_settled("second")


def killed_between_swap_and_reload_with_a_pair_that_does_not_work() -> None:
    configure(verify=["/bin/sh -c 'kill -KILL $PPID'"])
    install("second", expect=-signal.SIGKILL)
    configure()
    with reload_command("/bin/true"):
        # The next installation takes the unproven pair back before it begins.
        assert "taken back" in install("third", expect=1)
    is_settled("first")


def killed_between_reload_and_proof() -> None:
    configure(run=["/bin/sh -c 'kill -KILL $PPID'"])
    install("second", expect=-signal.SIGKILL)
    assert linked() == "second"
    configure()
    install("third")
    is_settled("third")


def killed_on_the_way_back() -> None:
    # The first call lets the pair through, which then fails on the wire; the second is that for the pair from before.
    once = WORK / "once"
    configure(run=[f"/bin/sh -c 'if [ -e {once} ]; then kill -KILL $PPID; fi; touch {once}'"])
    with reload_command("/bin/true"):
        install("second", expect=-signal.SIGKILL)
    once.unlink()
    assert linked() == "first"
    configure()
    assert "cut off while it went back" in program("watch")
    is_settled("first")


def two_installers_wait_for_each_other() -> None:
    configure(verify=["/bin/sleep 1", "/usr/sbin/nginx -t"])
    began = time.monotonic()
    arguments = ["/usr/local/sbin/civitas-certificates", "--config", str(CONFIG), "install", "story"]
    both = [
        subprocess.Popen([*arguments, "--chain", str(PKI / f"{pair}.pem"), "--key", str(PKI / f"{pair}.key")], stdout=subprocess.DEVNULL)
        for pair in ("second", "third")
    ]
    assert [one.wait() for one in both] == [0, 0]
    assert time.monotonic() - began > 2
    # A worker from before the second reload may take one more connection.
    end = time.monotonic() + 10
    while linked() != served():
        assert time.monotonic() < end, (linked(), served())
        time.sleep(0.1)
    is_settled(linked())


def a_service_that_does_not_run_gets_the_pair_later() -> None:
    run("systemctl", "stop", "nginx.service")
    said = install("second")
    assert "nginx.service does not run" in said and "did not answer before the change" in said, said
    run("systemctl", "start", "nginx.service")
    is_settled("second")


def a_pair_is_rolled_back() -> None:
    install("second")
    program("rollback", "story")
    is_settled("first")
    assert "in use already since a rollback" in program("rollback", "story")
    install("third")
    program("rollback", "story")
    is_settled("first")
    program("rollback", "story", "--generation", "2")
    is_settled("second")
    with reload_command("/bin/true"):
        assert "taken back" in program("rollback", "story", expect=1)
    is_settled("second")


def a_full_disk_leaves_the_pair_in_use() -> None:
    small = WORK / "small"
    small.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small)
    try:
        store = small / "store"
        configure(store)
        install("first")
        site(store / "story")
        run("systemctl", "reload", "nginx.service")
        is_settled("first", store)
        filler = small / "filler"
        fill = f"dd if=/dev/zero of={filler} bs=1k status=none"
        run("/bin/sh", "-c", fill, expect=1)
        assert "No space left" in install("second", expect=1)
        is_settled("first", store)
        filler.unlink()
        # Full at the worst moment: after the swap, with a pair that has to be taken back.
        configure(store, verify=[f"/bin/sh -c {shlex.quote(f'[ -e {filler} ] || {{ {fill}; false; }}')}"])
        said = install("second", expect=1)
        assert "is in use again, seen on" in said, said
        is_settled("first", store)
        filler.unlink()
        configure(store)
        install("second")
        is_settled("second", store)
    finally:
        site()
        run("systemctl", "reload", "nginx.service")
        for _attempt in range(50):
            # Workers that are being replaced have the files open.
            if "busy" not in run("umount", small, expect=None):
                break
            time.sleep(0.1)


def alerts() -> list[str]:
    lines = ALERTS.read_text().splitlines() if ALERTS.exists() else []
    ALERTS.unlink(missing_ok=True)
    return lines


def each_threshold_and_each_fault_is_told_once() -> None:
    program("watch")
    alerts()
    for pair, left, status in (("days-29", 29.5, 0), ("days-13", 13.5, 0), ("days-6", 6.5, 1), ("days-0", 0.9, 1)):
        install(pair)
        program("watch", expect=status)
        told = alerts()
        assert len(told) == 1 and f"ends in {left} days" in told[0], told
        program("watch", expect=status)
        assert alerts() == []
        program("status", expect=status)
    install("third")
    program("watch")
    assert alerts() == []

    site(PKI, "second.pem", "second.key")
    run("systemctl", "reload", "nginx.service")
    time.sleep(0.5)
    program("watch", expect=1)
    told = alerts()
    assert len(told) == 1 and "presents another certificate" in told[0], told
    run("systemctl", "stop", "nginx.service")
    program("watch", expect=1)
    told = alerts()
    assert len(told) == 1 and "presents no certificate" in told[0], told
    program("watch", expect=1)
    assert alerts() == []
    site()
    run("systemctl", "start", "nginx.service")
    program("watch")
    told = alerts()
    assert len(told) == 1 and "is well again" in told[0], told

    metrics = (WORK / "certificates.prom").read_text()
    label = '{name="story",place="127.0.0.1:8443 as records.test"}'
    assert f"civitas_certificate_served{label} 1\n" in metrics
    ends = re.search(rf"civitas_certificate_not_after_timestamp_seconds{re.escape(label)} (\d+)", metrics)
    assert ends and 299 < (int(ends[1]) - time.time()) / 86400 < 301
    assert json.loads((WORK / "watch.json").read_text())["ok"] is True


STORIES = [
    the_first_pair_waits_for_its_users,
    what_the_host_refuses_changes_nothing,
    a_configuration_that_nginx_refuses_takes_the_pair_back,
    another_judge_takes_the_pair_back,
    a_reload_without_effect_is_seen_on_the_wire,
    a_reload_that_fails_takes_the_pair_back,
    a_site_that_serves_another_file_is_seen_on_the_wire,
    killed_before_the_swap,
    killed_between_swap_and_reload,
    killed_between_swap_and_reload_with_a_pair_that_does_not_work,
    killed_between_reload_and_proof,
    killed_on_the_way_back,
    two_installers_wait_for_each_other,
    a_service_that_does_not_run_gets_the_pair_later,
    a_pair_is_rolled_back,
    a_full_disk_leaves_the_pair_in_use,
    each_threshold_and_each_fault_is_told_once,
    no_request_fails_while_pairs_are_swapped_under_load,
]


def main() -> None:
    run("rm", "-rf", WORK)
    WORK.mkdir(parents=True)
    configure()
    for story in STORIES:
        began = time.monotonic()
        story()
        # Back to the beginning: one generation, served.
        configure()
        run("rm", "-rf", STORE)
        install("first")
        run("systemctl", "reload", "nginx.service")
        is_settled("first")
        print(f"ok {story.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
    SITE.unlink()
    run("systemctl", "reload", "nginx.service")


if __name__ == "__main__":
    main()
