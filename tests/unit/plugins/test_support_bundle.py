# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host hands over, what the controller makes of it, and where that may lie. The whole way is shown by molecule/tier4."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _support_bundle as host
from ansible_collections.civitas.hosting.plugins.module_utils._redaction import Redactor, Secret
from ansible_collections.civitas.hosting.plugins.plugin_utils import _support_bundle as controller

ROOT = Path(__file__).resolve().parents[3]
SECRETS = [Secret("mail_password", "a passphrase of this test")]


def lay(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def collected(tmp_path: Path, root: Path, wanted: host.Wanted | None = None) -> tuple[dict[str, str], dict[str, object]]:
    path = tmp_path / "bundle.zip"
    host.collect(str(path), wanted or host.Wanted(), str(root))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    return files, json.loads(files.pop(host.MANIFEST))


@pytest.fixture(name="root")
def _root(tmp_path):
    root = tmp_path / "root"
    lay(root, "etc/civitas/apps/demo/secrets/admin", "only these words\n", 0o400)
    lay(root, "etc/civitas/mail.json", '{"host": "smart", "password": "only these words", "port": 587}', 0o600)
    lay(root, "etc/prometheus/alertmanager.yml", "credentials: bridge-token\n", 0o640)
    lay(root, "etc/nginx/nginx.conf", "# only these words, bridge-token\n")
    lay(root, "var/log/apt/history.log", "".join(f"line {number}\n" for number in range(300_000)))
    return root


def test_a_host_hands_over_what_is_known_of_it_without_its_secrets(tmp_path, root):
    files, manifest = collected(tmp_path, root, host.Wanted(log_bytes=1 << 20))
    assert files["files/etc/nginx/nginx.conf"] == "# [redacted: secret], [redacted: secret]\n"
    assert json.loads(files["files/etc/civitas/mail.json"]) == {"host": "(text)", "password": "[redacted: password]", "port": 587}
    assert not any("only these words" in text or "bridge-token" in text for text in files.values())
    assert not any("secrets/admin" in name for name in files)
    assert "Linux" in files["system/kernel.txt"]
    log = files["logs/apt/history.log"]
    assert (log.startswith("line "), log.endswith("line 299999\n"), len(log) <= 1 << 20) == (True, True, True)
    notes = {item["name"]: item["note"] for item in manifest["files"]}
    assert notes["logs/apt/history.log"].startswith("only its end, ")
    missing = {item["name"]: item["reason"] for item in manifest["missing"]}
    assert missing["files/etc/prometheus/alertmanager.yml"] == "it holds secrets and has no shape that could be shown"
    assert manifest["redacted"]["secret"] >= 2
    assert set(notes) == set(files)


def test_what_is_said_beforehand_is_what_is_collected(tmp_path, root):
    files, manifest = collected(tmp_path, root)
    there = set(files) | {item["name"] for item in manifest["missing"]}
    assert set(host.plan(host.Wanted(), str(root))) - there <= {"containers/state.txt"}


def test_a_link_to_a_key_is_not_followed(tmp_path, root):
    lay(root, "etc/civitas/certificates/edge/key.pem", "words of a key\n")
    (root / "etc/nginx/sites-enabled").mkdir()
    (root / "etc/nginx/sites-enabled/x.conf").symlink_to(root / "etc/civitas/certificates/edge/key.pem")
    (root / "etc/nginx/sites-enabled/y.conf").symlink_to(root / "etc/civitas/apps/demo/secrets/admin")
    files, _manifest = collected(tmp_path, root)
    assert not [name for name in files if "sites-enabled" in name]


# Templates of the roles that hold no settings: programs, pages, and what is laid below directories of secrets.
NO_SETTINGS = re.compile(r"(?:usr/|etc/postfix/login|etc/civitas/acme/rfc2136\.ini)|[^/]*\Z|etc/letsencrypt/")


def test_every_file_that_a_role_lays_down_is_collected():
    patterns = [host.glob.fnmatch.translate(pattern) for pattern in host.CONFIGURATION]
    for template in sorted(ROOT.glob("roles/*/templates/**/*.j2")):
        path = str(template.relative_to(ROOT).as_posix()).split("/templates/")[1]
        path = re.sub(r"\{\{.*?\}\}", "15", path.partition("/")[2] if not path.startswith("etc/") else path)[: -len(".j2")]
        if path and not NO_SETTINGS.match(path):
            assert any(re.match(pattern, path) for pattern in patterns), path
            assert not host._NEVER.match(path), path


def test_a_command_that_hangs_or_floods_holds_nothing_up():
    start = time.monotonic()
    with pytest.raises(host.Missing, match="did not end within 1 seconds"):
        list(host.output(("sh", "-c", "trap '' TERM; echo began; sleep 60 & sleep 60"), patience=1))
    assert time.monotonic() - start < 8
    with pytest.raises(host.Missing, match="more than 1 MiB"):
        for _data in host.output(("yes",), most=1 << 20):
            pass
    with pytest.raises(host.Missing, match="is not installed"):
        list(host.output(("no-such-program",)))
    with pytest.raises(host.Missing, match="no time left"):
        list(host.output(("true",), deadline=time.monotonic() - 1))


def test_what_a_command_printed_before_it_hung_is_kept(tmp_path):
    bundle = host.Bundle(str(tmp_path / "x.zip"), Redactor())
    bundle.add("part.txt", host.whole_lines(host.output(("yes",), most=3 << 20)))
    bundle.close()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read("part.txt").startswith(b"y\ny\n")
        (told,) = json.loads(archive.read(host.MANIFEST))["files"]
    assert told["note"] == "it ends early: yes printed more than 3 MiB"


def test_a_very_long_line_is_shortened_after_it_was_redacted(tmp_path):
    bundle = host.Bundle(str(tmp_path / "x.zip"), Redactor(SECRETS))
    bundle.add("part.txt", ["a" * 16375 + SECRETS[0].value + "b" * 1_000_000 + "\nend\n"])
    bundle.close()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        text = archive.read("part.txt").decode()
    assert "passphr" not in text
    assert len(text) < 40_000
    assert "characters left out" in text
    assert text.endswith("b\nend\n")


# --- the controller ---------------------------------------------------------------------------------------------------


def handed(path: Path, **files: str) -> str:
    manifest = {
        "files": [{"name": "a.txt", "bytes": 3, "note": "cut"}],
        "missing": [{"name": "b", "reason": "gone"}],
        "redacted": {"secret": 2},
    }
    with zipfile.ZipFile(path / "host.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
        archive.writestr(host.MANIFEST, json.dumps({**manifest, "too_short": []}))
    return str(path / "host.zip")


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read().decode() for member in archive.getmembers()}


def test_the_controller_takes_out_what_only_it_knows(tmp_path):
    source = handed(
        tmp_path, logs__a="x a+passphrase+of+this+test y\nfrom 198.51.100.7 and 10.0.0.7 and 198.51.100.7\n", logs__b="198.51.100.7\n"
    )
    target = tmp_path / "web.tar.gz"
    told = controller.second_pass(source, str(target), "web", SECRETS, controller.Addresses(b"key"), str(tmp_path))
    files = unpacked(target)
    name = re.search(r"\[address [0-9a-f]{8}\]", files["web/logs/b"])[0]
    assert files["web/logs/a"] == f"x [redacted: secret] y\nfrom {name} and 10.0.0.7 and {name}\n"
    assert told.redacted == {"secret": 3, "address": 3}
    assert "a.txt: 3 bytes" in files["web/MANIFEST.txt"]
    assert "b: gone" in files["web/MANIFEST.txt"]
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o600
    assert told.size == os.stat(target).st_size


def test_nothing_is_written_when_a_secret_would_remain(tmp_path, monkeypatch):
    source = handed(tmp_path, logs__a="x a passphrase of this test y\n")
    # Only the last look is left to see it.
    monkeypatch.setattr(controller, "Redactor", lambda _secrets: Redactor())
    with pytest.raises(controller.BundleError) as refused:
        controller.second_pass(source, str(tmp_path / "web.tar.gz"), "web", SECRETS, None, str(tmp_path))
    assert "mail_password" in str(refused.value)
    assert "logs/a" in str(refused.value)
    assert "passphrase of" not in str(refused.value)
    assert not [name for name in os.listdir(tmp_path) if "tar.gz" in name]


@pytest.mark.parametrize(
    "files",
    [{"..__x": "a"}, {"__etc__passwd": "a"}, {"a__..__..__b": "a"}, {"a\nb": "a"}, {"c" * 5000: "a"}],
    ids=["above", "root", "within", "newline", "long"],
)
def test_a_host_cannot_write_elsewhere(tmp_path, files):
    with pytest.raises(controller.BundleError, match="leads out of the bundle"):
        controller.second_pass(handed(tmp_path, **files), str(tmp_path / "web.tar.gz"), "web", SECRETS, None, str(tmp_path))
    assert not (tmp_path / "web.tar.gz").exists()


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x03\x04" + bytes(100)])
def test_what_is_not_whole_is_refused(tmp_path, data):
    (tmp_path / "host.zip").write_bytes(data)
    with pytest.raises(controller.BundleError, match="not whole"):
        controller.second_pass(str(tmp_path / "host.zip"), str(tmp_path / "web.tar.gz"), "web", SECRETS, None, str(tmp_path))


ADDRESSES = {
    "203.0.113.7": True,
    "2001:db8::7": True,
    "::ffff:203.0.113.7": True,
    "8.8.8.8": True,
    "10.1.2.3": False,
    "172.31.0.1": False,
    "192.168.1.1": False,
    "127.0.0.1": False,
    "0.0.0.0": False,
    "fe80::1": False,
    "fd00::1": False,
    "::1": False,
    "::": False,
    "255.255.255.0": False,
    "08:23:48": False,
    "aa:bb:cc:dd:ee:ff": False,
    "1.2.3": False,
    "300.1.1.1": False,
    "nginx::server": False,
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_public_addresses_get_a_name_and_private_ones_stay(text):
    for frame in ("from %s port 22", "[%s]:443", "%s", "to=%s,"):
        masked = controller.Addresses(b"key").mask(frame % text)
        assert (text not in masked) is ADDRESSES[text], masked
        assert ("[address " in masked) is ADDRESSES[text]


def test_an_address_has_one_name_in_a_bundle_and_another_in_the_next():
    one, same, other = (controller.Addresses(key) for key in (b"a", b"a", b"b"))
    assert one.mask("203.0.113.7") == same.mask("203.0.113.7") == one.mask("::ffff:203.0.113.7")
    assert one.mask("203.0.113.7") != one.mask("203.0.113.8")
    assert one.mask("203.0.113.7") != other.mask("203.0.113.7")
    assert one.mask("client: 10.0.0.7, server") != "client: 10.0.0.7, server"


def test_all_hosts_of_a_run_share_a_key(tmp_path):
    key = controller.shared_key(str(tmp_path))
    assert len(key) == 32
    assert controller.shared_key(str(tmp_path)) == key
    assert os.listdir(tmp_path) == ["civitas-support-bundle-key"]
    assert stat.S_IMODE(os.stat(tmp_path / "civitas-support-bundle-key").st_mode) == 0o600


@pytest.fixture(name="tree")
def _tree(tmp_path):
    tree = tmp_path / "inventory"
    tree.mkdir()
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    lay(tree, "hosts.yml", "all:\n")
    return tree


def committed(tree: Path) -> list[str]:
    subprocess.run(["git", "-C", str(tree), "add", "-A"], check=True)
    return subprocess.run(["git", "-C", str(tree), "ls-files"], capture_output=True, text=True, check=True).stdout.split()


def test_a_bundle_is_not_committed_by_accident(tree):
    directory = str(tree / "support")
    controller.check_directory(directory)
    path = controller.make_directory(directory, "site-1")
    lay(Path(path), "host.tar.gz", "x")
    assert committed(tree) == ["hosts.yml"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    # The next one too.
    controller.check_directory(directory)
    lay(Path(controller.make_directory(directory, "site-2")), "host.tar.gz", "x")
    assert committed(tree) == ["hosts.yml"]


def test_a_directory_that_git_looks_at_is_refused_before_anything_runs(tree, tmp_path):
    with pytest.raises(controller.BundleError, match="git work tree"):
        controller.check_directory(str(tree))
    lay(tree, "other/file", "x")
    with pytest.raises(controller.BundleError, match="git work tree"):
        controller.check_directory(str(tree / "other"))
    lay(tree, ".gitignore", "other/\n")
    controller.check_directory(str(tree / "other"))
    lay(tmp_path, "elsewhere/file", "x")
    controller.check_directory(str(tmp_path / "elsewhere"))
    with pytest.raises(controller.BundleError, match="is no directory"):
        controller.check_directory(str(tmp_path / "elsewhere/file"))


def test_a_directory_of_others_gets_no_file_of_ours(tmp_path):
    lay(tmp_path, "elsewhere/file", "x")
    controller.make_directory(str(tmp_path / "elsewhere"), "site-1")
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["file", "site-1"]
    with pytest.raises(controller.BundleError, match="cannot be made"):
        controller.make_directory(str(tmp_path / "elsewhere"), "site-1")


def test_what_is_told_names_what_is_missing():
    outcome = controller.Outcome(
        [{"name": "a", "bytes": 2048, "note": "only its end"}],
        [{"name": "b", "reason": "docker is not installed"}],
        {"secret": 3},
        ["pin"],
        4096,
    )
    text = controller.readme("site", "now", {"web": outcome._asdict(), "db": {"reason": "it was not reached\x1b[2J"}}, False)
    for line in (
        "READ IT BEFORE YOU SEND IT",
        "web.tar.gz, 4.0 KiB, 1 files",
        "a: only its end",
        "b: docker is not installed",
        "secret 3",
        "pin",
    ):
        assert line in text
    assert "NOT HERE: it was not reached\n" in text
    assert "what applications log" in text
    assert "look yourself, and make them longer: door_code\n" in controller.readme("site", "now", {}, True, ["door_code"])
    assert "what applications log" not in controller.readme("site", "now", {}, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-e", "support_bundle_hours=0"], "support_bundle_hours is 0. Write a whole number from 1 to 720."),
        (["-e", "support_bundle_log_megabytes=51"], "support_bundle_log_megabytes is 51. Write a whole number from 1 to 50."),
        (["-e", "support_bundle_hours=many"], "hours"),
        (["-e", "civitas_secrets_file=nowhere.yml"], "there is no secrets file"),
        (["--vault-password-file", "wrong"], "cannot be decrypted"),
        (["-e", "support_bundle_directory={inventory}"], "git work tree"),
    ],
    ids=["no hours", "too much", "no number", "no secrets", "wrong password", "committed"],
)
def test_what_is_written_wrong_is_said_before_a_host_is_asked(tree, options, said):
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".cache/collections")
    lay(tree, "right", "right password\n", 0o600)
    lay(tree, "wrong", "wrong password\n", 0o600)
    lay(tree, "hosts.yml", "all: {hosts: {far: {ansible_host: none.invalid}}}\n")
    lay(tree, "secrets.yml", "mail_password: a passphrase of this test\n", 0o600)
    subprocess.run(["ansible-vault", "encrypt", "--vault-password-file", "right", "secrets.yml"], cwd=tree, check=True, capture_output=True)
    options = [option.format(inventory=tree) for option in options]
    if "--vault-password-file" not in options:
        options += ["--vault-password-file", "right"]
    command = ["ansible-playbook", "-vvv", "-i", "hosts.yml", "civitas.hosting.support_bundle", *options]
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=120, check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert said in output, output[-3000:]
    assert "none.invalid" not in re.sub(r"(?m)^.*hosts\.yml.*$", "", output)
    assert "a passphrase of this test" not in output
    assert not (tree / "support").exists()


def test_a_host_that_is_not_reached_is_named_and_the_rest_is_there(tree):
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".cache/collections")
    lay(tree, "password", "right password\n", 0o600)
    near = "{ansible_connection: local, ansible_become: false, ansible_python_interpreter: '{{ ansible_playbook_python }}'}"
    lay(tree, "hosts.yml", f"all: {{hosts: {{far: {{ansible_host: none.invalid}}, near: {near}}}}}\n")
    lay(tree, "secrets.yml", "mail_password: a passphrase of this test\n", 0o600)
    subprocess.run(
        ["ansible-vault", "encrypt", "--vault-password-file", "password", "secrets.yml"], cwd=tree, check=True, capture_output=True
    )
    command = ["ansible-playbook", "-i", "hosts.yml", "--vault-password-file", "password", "civitas.hosting.support_bundle"]
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300, check=False)
    output = run.stdout + run.stderr
    assert run.returncode != 0
    assert "INCOMPLETE" in output, output[-3000:]
    (bundle,) = [path for path in (tree / "support").iterdir() if path.is_dir()]
    assert "NOT HERE" in (bundle / "README.txt").read_text().split("\nfar\n")[1].split("\nnear\n")[0]
    if os.geteuid() == 0:
        assert sorted(os.listdir(bundle)) == ["README.txt", "near.tar.gz"]
        assert "near/system/kernel.txt" in unpacked(bundle / "near.tar.gz")
    with contextlib.suppress(FileNotFoundError):
        assert not [name for name in os.listdir("/run") if name.startswith("civitas-support-bundle")]
