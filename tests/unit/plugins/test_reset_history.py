# SPDX-License-Identifier: GPL-3.0-or-later
"""Histories of real shells' form: what holds a secret goes, and everything else stays as it was."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._reset_history import HistoryError, clean, hashed

KNOWN = "Heron-4471-lagoon"


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    home = tmp_path / "amina"
    home.mkdir()
    return home


HISTORY = f"""#1772323200
ls -la /srv
cd /etc/ssh && grep PasswordAuthentication sshd_config
export PGPASSWORD=Ul7kQz0pV3
curl -u 'clerk:hunter22x' https://example.org/api
mysql --password={KNOWN} records
psql "postgres://records:{KNOWN}@db/records"
./import.sh "{KNOWN}"
echo done
"""


def cleaned(home: Path, change: bool = True) -> dict[str, int]:
    return {Path(one.path).name: one.lines for one in clean({hashed(KNOWN)}, change, [str(home)])}


def test_lines_with_secrets_go(home: Path) -> None:
    file = home / ".bash_history"
    file.write_text(HISTORY)
    file.chmod(0o600)
    assert cleaned(home, change=False) == {".bash_history": 5} and file.read_text() == HISTORY
    assert cleaned(home) == {".bash_history": 5}
    assert file.read_text() == "#1772323200\nls -la /srv\ncd /etc/ssh && grep PasswordAuthentication sshd_config\necho done\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and sorted(path.name for path in home.iterdir()) == [".bash_history"]
    assert cleaned(home) == {}


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("curl -s -u clerk:hunter22x https://example.org", True),
        ("curl --user=clerk:hunter22x https://example.org", True),
        ("curl -s https://example.org/api", False),
        ("mysqldump -uroot -phunter22x records", True),
        ("mysql -u root -p records", False),
        ("sshpass -p hunter22x ssh host", True),
        ("mongodump -u admin -p hunter22x", True),
        ("docker login -u clerk -p hunter22x", True),
        ("docker run -p 8080:80 nginx", False),
        ("mkdir -p /srv/data", False),
        ("redis-cli -a hunter22x ping", True),
        ("openssl enc -d -aes-256-cbc -pass pass:hunter22x -in a", True),
        ("openssl x509 -in a.pem -noout", False),
        ("ALTER ROLE clerk PASSWORD 'hunter22x';", True),
        ("passwd clerk", False),
    ],
)
def test_what_looks_like_a_secret(home: Path, line: str, secret: bool) -> None:
    (home / ".bash_history").write_text(f"{line}\n")
    assert cleaned(home) == ({".bash_history": 1} if secret else {})


def test_what_is_known_only_by_its_hash_is_found_alone(home: Path) -> None:
    (home / ".psql_history").write_text(f"SELECT 1;\n\\c {KNOWN}\n")
    assert cleaned(home) == {".psql_history": 1}
    (home / ".psql_history").write_text("\\c Heron-4471-lagoons\n")
    assert cleaned(home) == {}


def test_bytes_that_are_no_text_stay(home: Path) -> None:
    (home / ".zsh_history").write_bytes(b": 1:0;echo \xff\x83\nexport API_KEY=a8f7d6e5c4b3a291\n")
    assert cleaned(home) == {".zsh_history": 1}
    assert (home / ".zsh_history").read_bytes() == b": 1:0;echo \xff\x83\n"


def test_nothing_is_followed(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(HISTORY)
    (home / ".bash_history").symlink_to(other)
    with pytest.raises(HistoryError, match=r"\.bash_history"):
        cleaned(home)
    assert other.read_text() == HISTORY
    (home / ".bash_history").unlink()
    os.mkfifo(home / ".bash_history")
    assert cleaned(home) == {}


def test_the_owner_stays(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files to others")
    file = home / ".bash_history"
    file.write_text(HISTORY)
    os.chown(file, 12345, 12346)
    cleaned(home)
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_done(home: Path, tmp_path: Path) -> None:
    second = tmp_path / "boris"
    second.mkdir()
    (home / ".bash_history").symlink_to("nothing")
    (second / ".bash_history").write_text(HISTORY)
    with pytest.raises(HistoryError, match="amina"):
        clean(set(), True, [str(home), str(second)])
    assert "PGPASSWORD" not in (second / ".bash_history").read_text()
