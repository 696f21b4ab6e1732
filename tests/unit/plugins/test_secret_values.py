# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found of a host's secrets in each place where one can be, and what is not taken for one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._secret_values import of_host, of_text

# Apart, as the repository has no address with a password in it.
AT = "@"
PRIVATE = {
    "etc/civitas/apps/demo/secrets/database": ("only words in here\n", "only words in here"),
    "etc/civitas/second-factor/anna": ('JBSWY3DPEHPK3PXP\n" RATE_LIMIT 3 30\n12345678\n', "JBSWY3DPEHPK3PXP"),
    "etc/civitas/second-factor/ben": ('JBSWY3DPEHPK3PXQ\n" RATE_LIMIT 3 30\n87654321\n', "87654321"),
    "etc/civitas/mail.json": (json.dumps({"smtp": {"user": "x", "password": "pass words"}}), "pass words"),
    "etc/civitas/alerts.json": (
        json.dumps({"webhook": {"url": "https://chat.example.org/hooks/b3st"}}),
        "https://chat.example.org/hooks/b3st",
    ),
    "etc/civitas/site-alerts.json": (json.dumps({"headers": {"X-Key": "header-value"}}), "header-value"),
    "etc/postfix/login": ("[mail.example.org]:587 registry:let:me in\n", "let:me in"),
    "etc/prometheus/alertmanager.yml": ("receivers:\n  - credentials: 'bridge-token'  # x\n", "bridge-token"),
    "etc/thing": ("q9Zx1Kd83jfLw02mAbCdEfGh55\n", "q9Zx1Kd83jfLw02mAbCdEfGh55"),
    "root/.pgpass": ("db:5432:demo:demo:pg:pass\n", "pg:pass"),
}
PUBLIC = {
    "srv/civitas/apps/demo/compose.yml": ("services:\n  web:\n    environment:\n      API_TOKEN: c0mposed!\n", "c0mposed!"),
    "srv/civitas/apps/demo/.env": ("SMTP_PASS=d0tenv\n", "d0tenv"),
    "etc/systemd/system/a.service": ('[Service]\nEnvironment="A=b" "DB_PASSWORD=un1t env"\n', "un1t env"),
    "etc/systemd/system/b.service.d/x.conf": ("[Service]\nEnvironment=CLIENT_SECRET=un1tenv\n", "un1tenv"),
    "etc/systemd/system/c.service": ("[Service]\nExecStart=/bin/x --token t0ldthere\n", "t0ldthere"),
    "etc/apt/apt.conf.d/90proxy": (
        f'Acquire::http::Proxy "http://u:pr0xypass{AT}proxy:3128";\nX::Password: ""\nA: "http://u:pr0xypass{AT}x"\n',
        "pr0xypass",
    ),
    "etc/default/exporter": (f'DATA_SOURCE_NAME="postgresql://m:s0urce{AT}/db"\n', "s0urce"),
}


def lay(root: Path, path: str, text: str, mode: int) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


@pytest.mark.parametrize("path", [*PRIVATE, *PUBLIC])
def test_a_secret_is_found_where_it_is(tmp_path, path):
    text, value = {**PRIVATE, **PUBLIC}[path]
    lay(tmp_path, path, text, 0o600 if path in PRIVATE else 0o644)
    assert value in [secret.value for secret in of_host(str(tmp_path))]


def test_a_private_key_is_one_secret(tmp_path):
    key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
    lay(tmp_path, "etc/civitas/apps/demo/secrets/key", key, 0o400)
    assert [secret.value for secret in of_host(str(tmp_path))] == [key]


WORDS = {
    "etc/nsswitch.conf": "passwd: files systemd\n",
    "etc/civitas/metrics.json": json.dumps({"units": ["nginx.service"], "directory": "/var/lib/civitas/metrics"}),
    "etc/civitas/access.json": json.dumps({"key": "SHA256:Zm9vYmFyMTIzNDU2Nzg5MEFCQ0RFRkdISUpLTE1OT1A", "fingerprint": "ab:cd"}),
    "etc/civitas/people.txt": "key SHA256:Zm9vYmFyMTIzNDU2Nzg5MEFCQ0RFRkdISUpLTE1OT1A of anna\n",
    "etc/default/exporter": '# --web.bearer.token string\nARGS="--web.listen-address=127.0.0.1:9090"\n',
    "etc/sudoers.d/people": "deploy ALL=(ALL) NOPASSWD: ALL\n",
    "srv/civitas/apps/demo/compose.yml": "web:\n  environment:\n    PASSWORD_FILE: /run/secrets/db\n    TOKEN: ${TOKEN}\n",
    "etc/shadow": "root:$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7:19000:0:99999:7:::\n",
    "etc/cron.allow": "deploy\n",
    "etc/postgresql/15/main/conf.d/civitas.conf": "password_encryption = 'scram-sha-256'\nssl_key_file = '/etc/civitas/key.pem'\n",
}


@pytest.mark.parametrize("path", WORDS)
def test_words_of_every_day_are_not_taken_for_secrets(tmp_path, path):
    lay(tmp_path, path, WORDS[path], 0o644 if path == "etc/nsswitch.conf" else 0o600)
    assert of_host(str(tmp_path)) == []


def test_a_container_s_environment_is_known(tmp_path):
    found = of_host(str(tmp_path), [["PATH=/usr/bin", "ADMIN_PASSWORD=c0ntained words", f"DB=postgres://u:inside%40{AT}db/x"]])
    assert {"c0ntained words", "inside%40", "inside@"} <= {secret.value for secret in found}
    assert not any("/usr/bin" in secret.value for secret in found)


def test_what_a_process_was_started_with_is_known():
    waits = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits, "--password=t0ld by argument"], stdin=subprocess.PIPE, env={"SOME_TOKEN": "t0ld by environment"}
    ) as process:
        try:
            found = {secret.value for secret in of_host("/")}
        finally:
            process.kill()
    assert {"t0ld by environment", "t0ld by argument"} <= found


def test_a_file_that_is_no_text_is_passed_over(tmp_path):
    lay(tmp_path, "etc/blob", "x", 0o600)
    (tmp_path / "etc/blob").write_bytes(bytes(range(256)) * 8)
    lay(tmp_path, "etc/large", "password=b3stkept\n" + "#" * (300 << 10), 0o600)
    (tmp_path / "etc/loop").symlink_to("loop")
    assert of_host(str(tmp_path)) == []
    assert of_text("[" * 100_000, True) == []
