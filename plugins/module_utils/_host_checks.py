# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read-only probes of a host, one function per type of check.

Private to the collection: no promise of stability. A probe returns C((ok, evidence)); it never changes the host, never raises for a host
that is broken (that is its result), and ends within its time limit.
"""

from __future__ import annotations

import datetime
import glob
import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import time
import typing as t
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_wire, _hardening, _host_preflight

Result = t.Tuple[bool, str]
Check = t.Dict[str, t.Any]


class CheckError(Exception):
    """A check that is written wrongly (not: a host that fails it)."""


class Socket(t.NamedTuple):
    """A listening socket: protocol V(tcp) or V(udp), address in text form, port, inode of the kernel's table."""

    protocol: str
    address: str
    port: int
    inode: str


# A DHCP client listens for its answers; that is how many servers get the address that everything else is reached by.
TOLERATED_SOCKETS = {("udp", 68), ("udp", 546)}

_LISTEN_STATES = {"tcp": "0A", "udp": "07"}


def run_checks(checks: t.Sequence[Check]) -> t.List[t.Dict[str, t.Any]]:
    """Run the checks in order.

    Args:
        checks: mappings with V(id), V(title), V(type), V(remedy), the keys of their type, and optionally V(role) and V(timeout) (seconds).

    Returns:
        One mapping per check: V(id), V(title), V(role), V(ok), V(evidence) (one line), V(remedy), V(seconds).

    Raises:
        CheckError: an unknown type or a missing key, naming the check.
    """
    results = []
    for check in checks:
        probe = PROBES.get(check.get("type", ""))
        if probe is None:
            raise CheckError(f"check {check.get('id')}: unknown type {check.get('type')!r}; known are {', '.join(sorted(PROBES))}")
        started = time.monotonic()
        try:
            ok, evidence = probe(check)
        except KeyError as error:
            raise CheckError(f"check {check.get('id')}: type {check['type']} needs the key {error}") from error
        except subprocess.TimeoutExpired as error:
            ok, evidence = False, f"no answer within {error.timeout:g} s"
        except OSError as error:
            ok, evidence = False, str(error)
        results.append(
            {
                "id": check["id"],
                "title": check["title"],
                "role": check.get("role", ""),
                "ok": ok,
                "evidence": " ".join(evidence.split())[:500],
                "remedy": check["remedy"],
                "seconds": round(time.monotonic() - started, 2),
            }
        )
    return results


def _timeout(check: Check) -> float:
    return float(check.get("timeout", 10))


def _run(command: t.Sequence[str], check: Check) -> t.Tuple[int, str, str]:
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_timeout(check), check=False, cwd="/"
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]} is not installed"
    return done.returncode, done.stdout, done.stderr


# Services


def probe_service(check: Check) -> Result:
    """V(units): systemd units that must be active and, unless V(enabled) is false, enabled."""
    units = list(check["units"])
    rc, out, err = _run(["systemctl", "show", "--property=Id,LoadState,ActiveState,SubState,UnitFileState", "--", *units], check)
    if rc != 0:
        return False, err or out
    return judge_units(units, out, bool(check.get("enabled", True)))


def judge_units(units: t.Sequence[str], shown: str, enabled: bool) -> Result:
    """Judge the output of C(systemctl show) for C(units), blocks of C(key=value) lines in the order asked for."""
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    bad = []
    for unit, state in zip(units, blocks):
        if state.get("LoadState") != "loaded":
            bad.append(f"{unit} is {state.get('LoadState', 'unknown')}")
        elif state.get("ActiveState") != "active":
            bad.append(f"{unit} is {state.get('ActiveState')} ({state.get('SubState')})")
        elif enabled and state.get("UnitFileState") in ("disabled", "masked"):
            bad.append(f"{unit} runs but is {state.get('UnitFileState')}: it will not come back after a reboot")
    if len(blocks) != len(units):
        bad.append("systemctl answered for fewer units than were asked for")
    return (False, "; ".join(bad)) if bad else (True, f"active: {', '.join(units)}")


def probe_no_failed_units(check: Check) -> Result:
    """No systemd unit is in the state failed."""
    rc, out, err = _run(["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"], check)
    if rc != 0:
        return False, err
    failed = [line.split()[0] for line in out.splitlines() if line.strip()]
    return (False, f"failed: {', '.join(failed)}") if failed else (True, "no failed unit")


def probe_command(check: Check) -> Result:
    """V(command) (a list) exits with V(rc) (0 unless given); its output without the white space around it matches V(stdout), if given."""
    if isinstance(check["command"], str):
        raise CheckError(f"check {check['id']}: command must be a list of words")
    rc, out, err = _run(check["command"], check)
    wanted = int(check.get("rc", 0))
    if rc != wanted:
        return False, f"exit code {rc}, wanted {wanted}: {(err or out).strip()[-300:]}"
    out = out.strip()
    pattern = check.get("stdout")
    if pattern is None:
        return True, out.splitlines()[0] if out else f"exit code {rc}"
    found = re.search(pattern, out, re.MULTILINE)
    return (True, found[0][:200]) if found else (False, f"output does not match {pattern!r}: {out[:300]}")


# Network


def probe_tcp_listen(check: Check) -> Result:
    """Something accepts connections on V(port) of every address in V(addresses); V(::) is none where the kernel has no IPv6."""
    addresses = [address for address in check["addresses"] if address != "::" or _has_ipv6()] or check["addresses"]
    for address in addresses:
        with socket.create_connection((_connectable(address), int(check["port"])), timeout=_timeout(check)):
            pass
    return True, f"port {check['port']} answers on {', '.join(addresses)}"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _connectable(address: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(address, address)


def probe_http(check: Check) -> Result:
    """V(url) answers with V(status) (200 unless given, or a list) and a body that matches V(body), if given.

    V(ca_file) is the trust store for https (the system's unless given); V(connect_to) is an address to use in place of the name's, and
    0.0.0.0 or :: stands for loopback.
    Certificates and names are always verified. Redirects are not followed.
    """
    url = urlsplit(check["url"])
    if url.scheme not in ("http", "https") or not url.hostname:
        raise CheckError(f"check {check['id']}: url must begin with http:// or https:// and name a host: {check['url']!r}")
    port = url.port or (443 if url.scheme == "https" else 80)
    target = _connectable(str(check.get("connect_to") or url.hostname))
    wanted = check.get("status", 200)
    statuses = [int(status) for status in (wanted if isinstance(wanted, list) else [wanted])]
    connection = HTTPConnection(url.hostname, port, timeout=_timeout(check))
    try:
        raw = socket.create_connection((target, port), timeout=_timeout(check))
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=check.get("ca_file"))
            raw = context.wrap_socket(raw, server_hostname=url.hostname)
        connection.sock = raw
        connection.request("GET", (url.path or "/") + (f"?{url.query}" if url.query else ""), headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(1_000_000).decode("utf-8", "replace")
    except ssl.SSLError as error:
        return False, f"{check['url']}: TLS: {error.reason or error}"
    except HTTPException as error:
        return False, f"{check['url']}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    if response.status not in statuses:
        return False, f"{check['url']} answers {response.status}, wanted {' or '.join(map(str, statuses))}: {body[:200]}"
    pattern = check.get("body")
    if pattern is not None and not re.search(pattern, body):
        return False, f"{check['url']} answers {response.status}, but its body does not match {pattern!r}: {body[:200]}"
    return True, f"{check['url']} answers {response.status}"


def probe_certificate(check: Check) -> Result:
    """The server on V(address) and V(port) presents for V(server_name) the first certificate in V(file): one that was renewed is loaded.

    Chain and name are verified against V(ca_file) (the system's trust store unless given), and V(minimum_days) (14 unless given) must be
    left. V(starttls) is V(smtp) or V(postgres) for a server that is asked for TLS first.
    """
    starttls = check.get("starttls") or ""
    if starttls not in _certificate_wire.STARTTLS:
        raise CheckError(f"check {check['id']}: starttls {starttls!r} is unknown; write smtp, postgres or leave it out")
    address, port, name, file = _connectable(str(check["address"])), int(check["port"]), str(check["server_name"]), str(check["file"])
    where = f"{name} on {_show(address, port)}"
    try:
        wire = _certificate_wire.fetch(address, port, name, starttls, _timeout(check), check.get("ca_file"))
    except _certificate_wire.WireError as error:
        return False, str(error)
    if wire.verify_error:
        return False, f"{where}: {wire.verify_error}"
    with open(file, encoding="ascii", errors="replace") as stream:
        wanted = _certificate_wire.fingerprints(stream.read())
    if not wanted:
        return False, f"{file} holds no certificate"
    found = _certificate_wire.fingerprints(wire.chain_pem)
    if wanted[0] != found[0]:
        return False, f"{where} serves another certificate (SHA-256 {found[0][:16]}...) than {file} holds ({wanted[0][:16]}...)"
    ends = _certificate_wire.not_after(wire.chain_pem)
    days = (ends - time.time()) / 86400
    minimum = float(check.get("minimum_days", 14))
    if days < minimum:
        on = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ends))
        return False, f"{where}: the certificate ends in {days:.1f} days, at {on}; wanted are {minimum:g}"
    return True, f"{where} serves {file}, valid for {days:.0f} days"


def probe_exposure(check: Check) -> Result:
    """The sockets that listen beyond loopback are exactly covered by V(ports) (declarations of kind ports).

    A UDP socket that waits for answers looks like one that listens: those of the processes of V(clients) (declarations of that kind) are
    left out.
    """
    sockets: t.List[Socket] = []
    for protocol in ("tcp", "udp"):
        for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
            if os.path.exists(table):
                with open(table, encoding="ascii") as lines:
                    sockets.extend(parse_sockets(protocol, lines))
    undeclared = undeclared_sockets(sockets, check["ports"])
    published = _undeclared_publications(check)
    owners = _socket_owners({found.inode for found in undeclared})
    undeclared = without_clients(undeclared, owners, {str(client["process"]) for client in check.get("clients") or []})
    if undeclared or published:
        names = [f"{s.protocol} {_show(s.address, s.port)} ({owners.get(s.inode, 'unknown process')})" for s in undeclared]
        return False, "not declared: " + "; ".join(names + published)
    beyond = sorted({f"{s.protocol}/{s.port}" for s in sockets if not _is_loopback(s.address)})
    return True, f"beyond loopback listen only declared ports: {', '.join(beyond) or 'none'}"


def parse_sockets(protocol: str, lines: t.Iterable[str]) -> t.Iterator[Socket]:
    """The listening sockets in a table of C(/proc/net): C(tcp), C(tcp6), C(udp) or C(udp6)."""
    for line in lines:
        words = line.split()
        if len(words) < 10 or words[3] != _LISTEN_STATES[protocol]:
            continue
        address, port = words[1].split(":")
        yield Socket(protocol, _address(address), int(port, 16), words[9])


def _address(text: str) -> str:
    """Decode the kernel's form: 32-bit words, each in the byte order of the machine (little endian where we run)."""
    raw = bytes.fromhex(text)
    data = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address: t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address, None] = ipaddress.ip_address(data)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)


def undeclared_sockets(sockets: t.Iterable[Socket], ports: t.Iterable[t.Mapping[str, t.Any]]) -> t.List[Socket]:
    """The sockets beyond loopback that no declared port covers, in a stable order."""
    declared = [(str(p["protocol"]), int(p["port"]), [str(a) for a in p["addresses"]]) for p in ports if p["from"] != "loopback"]
    found = set()
    for listening in sockets:
        if _is_loopback(listening.address) or (listening.protocol, listening.port) in TOLERATED_SOCKETS:
            continue
        if not any(
            listening.protocol == pr and listening.port == po and _covers(addresses, listening.address) for pr, po, addresses in declared
        ):
            found.add(listening)
    return sorted(found)


def without_clients(sockets: t.Iterable[Socket], owners: t.Mapping[str, str], processes: t.Container[str]) -> t.List[Socket]:
    """The sockets without those from which the C(processes) ask; a port below 1024 is a service's."""
    return [s for s in sockets if not (s.protocol == "udp" and s.port >= 1024 and owners.get(s.inode) in processes)]


def _covers(addresses: t.Sequence[str], address: str) -> bool:
    wildcard = "::" if ":" in address else "0.0.0.0"
    return address in addresses or wildcard in addresses or "*" in addresses


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _show(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _socket_owners(inodes: t.Set[str]) -> t.Dict[str, str]:
    owners: t.Dict[str, str] = {}
    for link in glob.glob("/proc/[0-9]*/fd/*") if inodes else []:
        try:
            target = os.readlink(link)
            inode = target[8:-1] if target.startswith("socket:[") else ""
            if inode in inodes:
                with open(f"/proc/{link.split('/')[2]}/comm", encoding="utf-8", errors="replace") as comm:
                    owners[inode] = comm.read().strip()
        except OSError:
            continue
    return owners


def _undeclared_publications(check: Check) -> t.List[str]:
    """Ports that containers publish beyond loopback: the kernel forwards them before any socket of the host would show."""
    rc, out, _err = _run(["docker", "ps", "--no-trunc", "--format", "{{json .}}"], check)
    if rc != 0:
        return []
    return undeclared_publications([json.loads(line) for line in out.splitlines() if line.strip()], check["ports"])


def undeclared_publications(containers: t.Iterable[t.Mapping[str, str]], ports: t.Iterable[t.Mapping[str, t.Any]]) -> t.List[str]:
    """From the lines of C(docker ps --format json): publications beyond loopback that no declared port covers."""
    found = []
    declared = list(ports)
    for container in containers:
        for entry in (container.get("Ports") or "").split(", "):
            match = re.fullmatch(r"\[?([0-9a-fA-F.:]*?)\]?:(\d+)(?:-(\d+))?->[\d-]+/(tcp|udp)", entry)
            if not match:
                continue
            address, first, last, protocol = match[1] or "0.0.0.0", int(match[2]), int(match[3] or match[2]), match[4]
            published = [Socket(protocol, address, port, "") for port in range(first, last + 1)]
            if undeclared_sockets(published, declared):
                found.append(f"{entry} (container {container.get('Names', '?')})")
    return found


# Applications


def probe_containers(check: Check) -> Result:
    """Every container of the compose project V(project) runs and is not unhealthy; V(services) must all be there."""
    command = [
        "docker",
        "ps",
        "--all",
        "--no-trunc",
        "--filter",
        f"label=com.docker.compose.project={check['project']}",
        "--format",
        "{{json .}}",
    ]
    rc, out, err = _run(command, check)
    if rc != 0:
        return False, err
    return judge_containers([json.loads(line) for line in out.splitlines() if line.strip()], check.get("services") or [])


def judge_containers(containers: t.Sequence[t.Mapping[str, str]], services: t.Sequence[str]) -> Result:
    """Judge the lines of C(docker ps --all --format json). One-off job containers that ended well do not count."""
    bad = []
    seen = set()
    for container in containers:
        labels = dict(label.partition("=")[::2] for label in container.get("Labels", "").split(","))
        name, state, status = container.get("Names", "?"), container.get("State", "?"), container.get("Status", "")
        if labels.get("com.docker.compose.oneoff") == "True":
            continue
        seen.add(labels.get("com.docker.compose.service", ""))
        if state != "running":
            bad.append(f"{name} is {state} ({status})")
        elif "(unhealthy)" in status or "(health: starting)" in status:
            bad.append(f"{name} is up but {status[status.index('(') :]}")
    bad.extend(f"service {service} has no container" for service in services if service not in seen)
    if not containers:
        return False, "the project has no containers"
    return (False, "; ".join(bad)) if bad else (True, f"running: {', '.join(sorted(filter(None, seen)))}")


def probe_postgres(check: Check) -> Result:
    """PostgreSQL on V(port) is a writable primary, answers a query, and has V(databases)."""
    query = "SELECT json_build_object('recovery', pg_is_in_recovery(), 'databases', (SELECT json_agg(datname) FROM pg_database))"
    command = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-p", str(check["port"]), "-d", "postgres", "-c", query]
    rc, out, err = _run(command, check)
    if rc != 0:
        return False, err
    answer = json.loads(out)
    missing = sorted(set(check.get("databases") or []) - set(answer["databases"]))
    if answer["recovery"]:
        return False, "the server is in recovery: it takes no writes"
    if missing:
        return False, f"no database {', '.join(missing)}"
    return True, f"takes writes; databases: {', '.join(check.get('databases') or answer['databases'])}"


def probe_file(check: Check) -> Result:
    """V(path) is a file (or a directory) and, if given, has V(mode) (octal text), V(owner) and V(group)."""
    import grp
    import pwd

    path = check["path"]
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return False, f"{path} does not exist"
    found = {
        "mode": f"{state.st_mode & 0o7777:04o}",
        "owner": _name(lambda: pwd.getpwuid(state.st_uid).pw_name, state.st_uid),
        "group": _name(lambda: grp.getgrgid(state.st_gid).gr_name, state.st_gid),
    }
    bad = [
        f"{key} is {found[key]}, wanted {check[key]}"
        for key in ("mode", "owner", "group")
        if key in check and str(check[key]) != found[key]
    ]
    return (False, f"{path}: {'; '.join(bad)}") if bad else (True, f"{path} is as declared")


def _name(look_up: t.Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except KeyError:
        return str(number)


# Hardening


def probe_hardening(check: Check) -> Result:
    """V(topics): what the module civitas.hosting.hardening would change; nothing is right."""
    host = _hardening.Hardening(lambda command: _run(command, check), check=True)
    try:
        host.apply(check["topics"], undo=False)
    except _hardening.HardeningError as error:
        return False, str(error)
    changes = [line for lines in host.changes.values() for line in lines]
    return (False, "would change: " + "; ".join(changes)) if changes else (True, "all is as it was set")


def probe_suid(check: Check) -> Result:
    """V(allowed): patterns of the programs that may run with another's rights."""
    found = _hardening.review_suid(lambda command: _run(command, check), check["allowed"])
    return (False, "not on the list: " + ", ".join(found)) if found else (True, "only programs that are on the list")


def probe_accounts(check: Check) -> Result:
    """V(allowed): system accounts that may have a shell. None has an empty password, only root has the number 0."""
    host = _hardening.Hardening(lambda command: _run(command, check), check=True)
    with open("/etc/shells", encoding="utf-8") as stream:
        shells = _hardening.valid_shells(stream.read())
    found = _hardening.review_accounts(host.accounts(), shells, check["allowed"])
    return (False, "; ".join(found)) if found else (True, "one root, no empty password, no system account with a shell")


def probe_audit(check: Check) -> Result:
    """V(key): a key that rules of the kernel must have."""
    return _hardening.review_audit(lambda command: _run(command, check), check["key"])


def probe_apparmor(check: Check) -> Result:
    """AppArmor's profiles are in force, or the kernel has none for this container."""
    return _hardening.review_apparmor(lambda command: _run(command, check))


def probe_release(check: Check) -> Result:
    """V(minimum_days): the release gets security updates for that long."""
    with open("/etc/os-release", encoding="utf-8") as stream:
        values = _host_preflight.parse_os_release(stream.read())
    release = _host_preflight.RELEASES.get((values.get("ID", ""), values.get("VERSION_ID", "")))
    if release is None:
        return False, f"the end of {values.get('PRETTY_NAME', 'this system')} is not known"
    left = (release.end - datetime.date.fromtimestamp(time.time())).days
    return left >= int(check["minimum_days"]), f"{release.title} gets security updates until {release.end}, {left} more days"


PROBES: t.Dict[str, t.Callable[[Check], Result]] = {
    "service": probe_service,
    "no_failed_units": probe_no_failed_units,
    "command": probe_command,
    "tcp_listen": probe_tcp_listen,
    "http": probe_http,
    "certificate": probe_certificate,
    "exposure": probe_exposure,
    "containers": probe_containers,
    "postgres": probe_postgres,
    "file": probe_file,
    "hardening": probe_hardening,
    "suid": probe_suid,
    "accounts": probe_accounts,
    "audit": probe_audit,
    "apparmor": probe_apparmor,
    "release": probe_release,
}
