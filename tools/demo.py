# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: one container as the server, built over SSH by the single-server playbook, proven through its public address.

python -m tools.demo up      build it, or bring it up to date
python -m tools.demo down    remove it with everything it generated
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tools import bed, kinto_image
from tools.bed import BedError, say
from tools.records import Records, RecordsError, Story

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / "inventories" / "demo"
DIRECTORY = Path(os.environ.get("CIVITAS_DEMO_DIR") or ROOT / ".demo")
HOST = os.environ.get("CIVITAS_DEMO_HOST", f"civitas-demo-{bed.CHECKOUT}")
NAME = "localhost"
PORTS = {443: ("CIVITAS_DEMO_HTTPS_PORT", 8443), 80: ("CIVITAS_DEMO_HTTP_PORT", 8080), 22: ("CIVITAS_DEMO_SSH_PORT", 2222)}
ADMINISTRATOR = "admin"
VISITOR = "visitor"
ADMINISTRATOR_SECRET = "app_demo_admin_password"


def port(inner: int) -> int:
    variable, default = PORTS[inner]
    value = os.environ.get(variable) or str(default)
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise BedError(f"{variable}={value} is no port.", "Give a number from 1 to 65535.")
    return int(value)


def up() -> None:
    bed.ensure_engine()
    start_server()
    run_playbook()
    records = Records(NAME, port(443), DIRECTORY / "ca.pem", address="127.0.0.1")
    proven = prove(records)
    report(proven)


def start_server() -> None:
    """Everything up to the point where the playbook can run: keys, password, image archive, a server that answers over SSH."""
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    image = kinto_image.ensure_archive()
    (DIRECTORY / "image.json").write_text(json.dumps(image))
    key = DIRECTORY / "ssh_key"
    for path in (key, DIRECTORY / "visitor_key"):
        if not path.exists():
            bed.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"civitas demo {path.name}", "-f", str(path))
    password = DIRECTORY / "vault-password"
    if not password.exists():
        with open(password, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    state = bed.docker("inspect", "--type", "container", "--format", "{{.State.Status}}", HOST, check=False)
    if state == "":
        for inner in PORTS:
            assert_free(inner)
        say(f"starting a bare Debian 13 server as the container {HOST}")
        bed.start_host(
            HOST, "debian13", publish={inner: port(inner) for inner in PORTS},
            env={"CIVITAS_BED_AUTHORIZED_KEY": key.with_suffix(".pub").read_text().strip()},
        )  # fmt: skip
    elif state != "running":
        say(f"starting the server {HOST} again")
        bed.ensure_cache()
        bed.docker("start", HOST)
        bed.wait_ready(HOST)
    else:
        bed.ensure_cache()
    published = bed.docker("port", HOST)
    for inner in PORTS:
        if f"127.0.0.1:{port(inner)}" not in published:
            raise BedError(
                f"The demo server runs with other ports: {published.splitlines()}.",
                "Run 'make demo-down' first, then 'make demo' with the new ports.",
            )
    # The host key comes by the engine and not over the network: the first connection is verified like all others.
    host_key = bed.docker("exec", HOST, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    (DIRECTORY / "known_hosts").write_text(f"[127.0.0.1]:{port(22)} {' '.join(host_key)}\n")


def assert_free(inner: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port(inner)))
        except OSError as error:
            variable = PORTS[inner][0]
            raise BedError(
                f"Port {port(inner)} of this machine cannot be used: {error.strerror}.", f"Choose another: {variable}=18443 make demo"
            ) from error


def playbook_environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(ROOT / ".cache" / "collections")),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(DIRECTORY / "vault-password"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }


def playbook_command(playbook: str, *options: str) -> list[str]:
    return [str(Path(sys.executable).with_name("ansible-playbook")), str(ROOT / "playbooks" / playbook), "-i", str(INVENTORY), *options]


def run_playbook() -> None:
    """Run single.yml, one line per task with the elapsed time; the whole output goes to a log."""
    command = playbook_command("single.yml")
    log = DIRECTORY / "ansible.log"
    say("running playbooks/single.yml against inventories/demo over SSH")
    with log.open("w") as output, subprocess.Popen(
        command, cwd=ROOT, env=playbook_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            output.write(line)
            task = re.match(r"(?:TASK|RUNNING HANDLER) \[(?:civitas\.hosting\.)?(.*?)\] \*", line)
            if task:
                say(f"  {task[1]}")
    if process.returncode:
        tail = log.read_text().splitlines()[-40:]
        raise BedError(
            "\n".join(["The playbook failed; its last lines were:", *(f"    {line}" for line in tail)]),
            f"The whole output is in {log.relative_to(ROOT)}. After mending it, run 'make demo' again: it goes on where it stopped.",
        )


def secret(name: str) -> str:
    """A value of the demo's secrets file, decrypted in this process only."""
    import yaml
    from ansible.parsing.vault import VaultLib, VaultSecret

    password = (DIRECTORY / "vault-password").read_bytes().strip()
    text = VaultLib([("default", VaultSecret(password))]).decrypt((DIRECTORY / "secrets.yml").read_bytes())
    return str(yaml.safe_load(text)[name])


def prove(records: Records) -> list[str]:
    """Do the server's job once, from outside. Returns what was seen, one sentence each."""
    say("proving it through the public address")
    took = records.wait(60)
    story = Story(records, (ADMINISTRATOR, secret(ADMINISTRATOR_SECRET)))
    if not story.is_kept():
        raise RecordsError("the record that was read back is not the one that was written")
    proven = [f"an account and a record were created over verified HTTPS and read back (healthy after {took:.1f} s)"]
    with socket.create_connection(("127.0.0.1", port(80)), timeout=10) as plain:
        plain.sendall(b"GET /v1/?a=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: plain.recv(4096), b"")).decode()
    wanted = f"Location: https://{NAME}:{port(443)}/v1/?a=b"
    if " 301 " not in answer.split("\n", 1)[0] or wanted not in answer:
        raise RecordsError(f"plain HTTP does not redirect to HTTPS: {answer.splitlines()[:1]}")
    proven.append("plain HTTP only redirects")
    proven.append(prove_the_second_factor())
    return proven


def ssh_command(key: str, login: str, *options: str, directory: Path = DIRECTORY) -> list[str]:
    files = ["-i", str(directory / key), "-o", f"UserKnownHostsFile={directory / 'known_hosts'}"]
    return ["ssh", *files, "-o", "IdentitiesOnly=yes", *options, "-p", str(port(22)), f"{login}@127.0.0.1"]


def prove_the_second_factor() -> str:
    """Whether a person with the right key and without a code stays outside, and for that reason."""
    done = subprocess.run(
        [*ssh_command("visitor_key", VISITOR, "-o", "BatchMode=yes"), "true"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 255 or "Permission denied (keyboard-interactive)" not in done.stderr:
        raise RecordsError(f"the key alone should not let a person in, but ssh ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return f"the key of the person {VISITOR} alone does not open SSH: a code is asked for"


def report(proven: list[str]) -> None:
    address = f"https://{NAME}:{port(443)}/v1/"
    relative = DIRECTORY.relative_to(ROOT)
    lines = [
        "",
        "The demonstration server is up.",
        f"  address        {address}",
        f"  trusted by     {relative}/ca.pem     curl --cacert {relative}/ca.pem {address}",
        f"  admin page     {address}admin/",
        f"  credentials    user {ADMINISTRATOR}; the password is {ADMINISTRATOR_SECRET} in the encrypted secrets file:",
        f"                 .venv/bin/ansible-vault view --vault-password-file {relative}/vault-password {relative}/secrets.yml",
        f"  server         ssh -i {relative}/ssh_key -o UserKnownHostsFile={relative}/known_hosts -p {port(22)} root@127.0.0.1",
        f"  as a person    {' '.join(ssh_command('visitor_key', VISITOR, directory=relative))}",
        f"                 asks for a code; age -d -i {relative}/visitor_key {relative}/enrolment/records/{VISITOR}.tar.age | tar -x",
        "                 gives what an authenticator needs for it",
        f"  log            {relative}/ansible.log",
        "Proven just now:",
        *(f"  - {sentence}" for sentence in proven),
        "  - the server's own checks passed (playbooks/status.yml, at the end of the log)",
        "Remove it: make demo-down",
        f"It took {bed.elapsed():.0f} s.",
    ]
    print("\n".join(lines), flush=True)


def down() -> None:
    bed.remove_host(HOST)
    if DIRECTORY.exists():
        shutil.rmtree(DIRECTORY)
    say("the demonstration server and what it generated are gone; images and package cache stay for next time")


def main() -> int:
    if sys.argv[1:] not in (["up"], ["down"]):
        print(__doc__, file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        (up if sys.argv[1] == "up" else down)()
    except (BedError, RecordsError, OSError) as error:
        print(f"\nmake demo stopped after {time.monotonic() - started:.0f} s: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. 'make demo' goes on from here; 'make demo-down' removes what there is.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
