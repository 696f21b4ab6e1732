# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins from the controller with the real client, its questions answered by a program."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.civitas.hosting.plugins.module_utils._login_probe import totp, wrong_code

MADE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
OPTIONS = {
    "BatchMode": "no",
    "ConnectTimeout": "20",
    "ControlPath": "none",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "LogLevel": "ERROR",
    "NumberOfPasswordPrompts": "1",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
}
STEP = 30


@dataclasses.dataclass(frozen=True)
class Door:
    """One host's SSH server as somebody outside meets it."""

    address: str

    def command(self, program: str, key: str, *options: str) -> list[str]:
        settings = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
        return [program, "-F", "/dev/null", *settings, *(["-i", str(MADE / key)] if key else []), *options]

    @contextlib.contextmanager
    def answering(self, answer: str) -> Iterator[dict[str, str]]:
        """The environment in which the client gets this answer to whatever it asks."""
        with tempfile.TemporaryDirectory() as directory:
            askpass = Path(directory) / "askpass"
            askpass.write_text("#!/bin/sh\nprintf '%s\\n' \"$ANSWER\"\n")
            askpass.chmod(0o700)
            yield {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0", "ANSWER": answer}

    def run(self, argv: list[str], answer: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
        with self.answering(answer) as environment:
            return subprocess.run(argv, env=environment, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    def login(self, name: str, answer: str = "", key: str | None = None, *options: str, run: str = "id -un") -> bool:
        """Whether a command ran as this account."""
        done = self.run([*self.command("ssh", name if key is None else key, *options), f"{name}@{self.address}", run], answer)
        assert "Connection refused" not in done.stderr, done.stderr
        assert (done.returncode == 0) == (done.stdout.strip() == name) or run != "id -un", done
        return done.returncode == 0

    def forwards(self, name: str, answer: str = "") -> str:
        """What an HTTP-less greeting comes back through a forwarded port: that of the host's own sshd, or nothing."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        argv = [*self.command("ssh", name, "-o", "ExitOnForwardFailure=yes", "-N", "-L", f"127.0.0.1:{port}:127.0.0.1:22")]
        with self.answering(answer) as environment, tempfile.TemporaryFile("w+") as said:
            client = subprocess.Popen([*argv, f"{name}@{self.address}"], env=environment, stdin=subprocess.DEVNULL, stderr=said)
            try:
                while client.poll() is None:
                    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=20) as end:
                        return end.recv(4).decode() or "open, but nothing comes through"
                    time.sleep(0.1)  # between two looks at the port
                said.seek(0)
                return said.read()
            finally:
                client.kill()
                client.wait()


def quiet_moment() -> None:
    """Wait until the present code is good for some more seconds."""
    while time.time() % STEP > STEP - 12:
        time.sleep(0.2)  # between two looks at the clock


def code(secret: str, off: float = 0.0) -> str:
    """The code of somebody whose clock is off by so many seconds."""
    return totp(secret, time.time() + off)


def wrong(secret: str) -> str:
    return wrong_code(secret, time.time())


def opened(host: object, name: str) -> dict[str, str]:
    """The enrolment that was made for a person, opened with the person's private key on a host, as the controller need not have age."""
    (file,) = (MADE / "enrolment").glob(f"{hostname(host)}/{name}.tar.age")
    private = base64.b64encode((MADE / name).read_bytes()).decode()
    cipher = base64.b64encode(file.read_bytes()).decode()
    script = (
        "set -eu; d=$(mktemp -d); trap 'rm -rf $d' EXIT; chmod 700 $d; "
        f"printf %s '{private}' | base64 -d > $d/key; chmod 600 $d/key; printf %s '{cipher}' | base64 -d > $d/cipher; "
        "age -d -i $d/key $d/cipher | tar -x -C $d; cd $d; for f in */*; do printf '%s ' $f; base64 -w0 $f; echo; done"
    )
    lines = host.check_output("sh -c %s", script).splitlines()  # type: ignore[attr-defined]
    return dict(line.split() for line in lines)


def hostname(host: object) -> str:
    return str(host.backend.get_pytest_id()).rpartition("/")[2]  # type: ignore[attr-defined]
