# SPDX-License-Identifier: GPL-3.0-or-later
"""A real virtual machine: what containers cannot prove, such as a reboot, auditing, AppArmor and the kernel's own parameters.

Emulated (no KVM is asked for), so that it runs on every machine. The image is made once from the Debian mirror and kept; a run writes to a
temporary overlay and leaves it as it was.

    python -m tools.vm start NAME         a machine that is ready when the command returns; prints how to log in, as JSON
    python -m tools.vm wait NAME          until it has booted (again) and lets the automation in
    python -m tools.vm grow NAME SIZE     its data disk becomes larger while it runs, to SIZE megabytes
    python -m tools.vm remove NAME ...    their end
    python -m tools.vm down               the end of every machine of this checkout
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools import bed
from tools.bed import BedError, say

HOME = bed.CACHE / "vm"
KEY = HOME / "id_ed25519"
CODENAME = "bookworm"
MEMORY = 1536
SIZE = "6G"
# An empty disk beside that of the system, /dev/disk/by-id/virtio-civitas-data there. XFS takes no smaller one.
DATA_MEGABYTES = 320
# Beside a bare server: what the roles install. That they do so is proven in containers, where it takes seconds and not minutes.
PACKAGES = [
    "linux-image-cloud-amd64", "systemd-sysv", "dbus", "openssh-server", "python3", "python3-apt", "sudo", "iproute2", "procps",
    "ca-certificates", "apparmor", "auditd", "chrony", "logrotate", "needrestart", "tzdata", "unattended-upgrades", "libpam-pwquality",
    "cracklib-runtime", "nftables", "conntrack", "libpam-google-authenticator", "age", "qrencode", "e2fsprogs", "xfsprogs",
    "cryptsetup-bin", "clevis", "clevis-luks", "clevis-tpm2", "tang", "cloud-guest-utils", "fdisk",
]  # fmt: skip
# Program -> package.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "ssh-keygen": "openssh-client",
    "swtpm": "swtpm",
}
# $1: the root of the image, $2: the public key that opens it.
CUSTOMIZE = """
set -e
root="$1"
chroot "$root" useradd --create-home --home-dir /srv/deploy --shell /bin/bash deploy
install -d -m 0700 "$root/srv/deploy/.ssh"
cp "$2" "$root/srv/deploy/.ssh/authorized_keys"
chroot "$root" chown -R deploy:deploy /srv/deploy/.ssh
printf 'deploy ALL=(ALL) NOPASSWD: ALL\\n' > "$root/etc/sudoers.d/deploy"
printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=ipv4\\n' > "$root/etc/systemd/network/eth0.network"
# As the roles install packages: what they want to run, they start.
chroot "$root" systemctl disable auditd.service chrony.service tangd.socket
# Nobody outside may know the time, and codes need it.
cat > "$root/etc/systemd/system/time-server.service" <<'UNIT'
[Unit]
Description=A time server that has the clock of the machine
[Service]
# Where chronyd may write, made as it makes it.
ExecStartPre=/usr/bin/install -d -o _chrony -g _chrony -m 0750 /run/chrony
ExecStart=/usr/sbin/chronyd -x -d "local stratum 8" "allow 127.0.0.1" "bindaddress 127.0.0.1" "cmdport 0" "bindcmdaddress /" \\
  "pidfile /run/chrony/time-server.pid"
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl enable systemd-networkd.service time-server.service
# The resolver of the emulated network.
printf 'nameserver 10.0.2.3\\n' > "$root/etc/resolv.conf"
printf '/dev/vda / ext4 defaults 0 1\\n' > "$root/etc/fstab"
printf 'civitas-vm\\n' > "$root/etc/hostname"
printf '127.0.0.1 localhost\\n127.0.1.1 civitas-vm\\n' > "$root/etc/hosts"
"""


def obstacle() -> str:
    """Why no machine can run here; nothing when one can."""
    if os.uname().machine != "x86_64":
        return "the virtual machine is one for x86_64, and this machine is not"
    if os.geteuid() != 0:
        return "only root can make the image of the virtual machine"
    missing = _missing()
    if missing and shutil.which("apt-get") is None:
        return f"the virtual machine needs {', '.join(missing)}, and this is neither Debian nor Ubuntu: install them"
    return ""


def _missing() -> list[str]:
    """Packages that this machine has not."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.append("debian-archive-keyring")
    return missing


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One process at a time makes the image. Not the bed's lock: it takes minutes, and containers need nothing of it."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_image() -> Path:
    """The directory with disk, kernel and initrd; made when missing, or when what it is made of has changed."""
    if missing := _missing():
        with bed.locked():
            bed._apt_install(*missing)
    with _locked():
        if not KEY.exists():
            bed.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(KEY))
        folder = HOME / bed._digest(CODENAME, SIZE, CUSTOMIZE, *PACKAGES, KEY.with_suffix(".pub").read_text())
        if not folder.is_dir():
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    say("making the image of the virtual machine (about a minute)")
    for old in HOME.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    making = folder.with_suffix(".making")
    making.mkdir()
    root = making / "root"
    script = making / "customize"
    script.write_text(CUSTOMIZE)
    bed.LOGS.mkdir(parents=True, exist_ok=True)
    log = bed.LOGS / "vm-image.log"
    with log.open("w") as handle:
        done = subprocess.run(
            [
                "mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}",
                f"--customize-hook=sh {script} \"$1\" {KEY.with_suffix('.pub')}",
                CODENAME, str(root), *bed._mirrors(CODENAME),
            ],
            stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, check=False, timeout=900,
        )  # fmt: skip
    if done.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise BedError(f"mmdebstrap could not make the virtual machine: {lines[-1] if lines else ''}", f"The whole output: {log}")
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    shutil.copy(kernel, making / "kernel")
    shutil.copy(initrd, making / "initrd")
    bed.run("mkfs.ext4", "-q", "-d", str(root), str(making / "disk"), SIZE, timeout=300)
    shutil.rmtree(root)
    making.rename(folder)


def _pid(name: str) -> int:
    """The process of a machine, 0 when it does not run."""
    try:
        number = int((HOME / f"{name}.pid").read_text())
        command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    # The number may be another's by now.
    return number if name.encode() in command else 0


def _log(name: str) -> Path:
    return bed.LOGS / f"{name}.console.log"


def login(name: str) -> dict[str, str | int]:
    """How to log in. The ports of the loopback are those of this checkout and name: `port` leads to SSH, `probe_port` to port 8080."""
    port = 20000 + 2 * (int(bed._digest(bed.CHECKOUT, name)[:8], 16) % 5000)
    return {"address": "127.0.0.1", "port": port, "user": "deploy", "identity_file": str(KEY), "probe_port": port + 1}


def ssh(name: str, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command as the automation's account, which has sudo, over a connection of its own.

    The connection ends when the machine is silent for 15 seconds: nothing tells it that the machine was restarted.
    """
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "ControlPath=none", "ConnectTimeout=20"]
    options += ["ServerAliveInterval=5", "ServerAliveCountMax=3"]
    settings = [word for option in options for word in ("-o", option)]
    return subprocess.run(
        ["ssh", "-F", "/dev/null", "-i", str(KEY), "-p", str(login(name)["port"]), *settings, "deploy@127.0.0.1", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout,
    )  # fmt: skip


def wait_ready(name: str, deadline: float = 300, patience: float = 60) -> None:
    """Wait until a machine has booted and lets the automation in.

    deadline: seconds in all. patience: seconds for one question, as one that was asked on the way down is never answered.
    """

    def booted() -> bool:
        if not _pid(name):
            raise BedError(f"The virtual machine {name} does not run.", f"Look at: {_log(name)}")
        try:
            # On the way down it says `stopping`.
            return ssh(name, "systemctl", "is-system-running", "--wait", timeout=patience).stdout.strip() in ("running", "degraded")
        except subprocess.TimeoutExpired:
            return False

    bed.wait_for(f"The boot of the virtual machine {name}", booted, deadline, f"Look at: {_log(name)}")


def start(name: str) -> None:
    """Start a machine and wait for it."""
    folder = ensure_image()
    if _pid(name):
        raise BedError(f"A virtual machine {name} runs already.", f"Remove it: python -m tools.vm remove {name}")
    say(f"starting the virtual machine {name}")
    began = time.monotonic()
    bed.LOGS.mkdir(parents=True, exist_ok=True)
    ports = login(name)
    data = _beside(name, "data")
    with data.open("wb") as handle:
        handle.truncate(DATA_MEGABYTES << 20)
    forwards = f"hostfwd=tcp:127.0.0.1:{ports['port']}-:22,hostfwd=tcp:127.0.0.1:{ports['probe_port']}-:8080"
    try:
        _start_tpm(name)
        bed.run(
            "qemu-system-x86_64", "-name", name, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY),
            "-display", "none", "-serial", f"file:{_log(name)}", "-daemonize", "-pidfile", str(HOME / f"{name}.pid"),
            "-kernel", str(folder / "kernel"), "-initrd", str(folder / "initrd"),
            # Guards against leaks of a real processor; here they only cost time.
            "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet mitigations=off",
            # The overlay of a run is a file that nobody sees: it ends with the process.
            "-drive", f"file={folder / 'disk'},format=raw,if=none,id=system,snapshot=on,cache=unsafe",
            # The first one is /dev/vda.
            "-device", "virtio-blk-pci,drive=system",
            "-drive", f"file={data},format=raw,if=none,id=data,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=data,serial=civitas-data", "-qmp", f"unix:{_beside(name, 'qmp')},server=on,wait=off",
            "-chardev", f"socket,id=tpm,path={_beside(name, 'tpm')}/socket", "-tpmdev", "emulator,id=tpm,chardev=tpm",
            "-device", "tpm-tis,tpmdev=tpm",
            "-netdev", f"user,id=net,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
            timeout=60,
        )  # fmt: skip
        wait_ready(name)
    except BaseException:
        remove(name)
        raise
    say(f"{name} is up after {time.monotonic() - began:.0f} s")


def remove(*names: str) -> None:
    """End machines; one that does not run is no error."""
    for name in names:
        if number := _pid(name):
            os.kill(number, signal.SIGKILL)
            bed.wait_for(f"The end of {name}", functools.partial(lambda one: not _pid(one), name), 30)
        (HOME / f"{name}.pid").unlink(missing_ok=True)
        _beside(name, "data").unlink(missing_ok=True)
        _beside(name, "qmp").unlink(missing_ok=True)
        shutil.rmtree(_beside(name, "tpm"), ignore_errors=True)


def _beside(name: str, what: str) -> Path:
    """What a machine has beside the disk of its system."""
    return HOME / f"{name}.{what}"


def _start_tpm(name: str) -> None:
    """The TPM of a machine, which ends with it."""
    state = _beside(name, "tpm")
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    bed.run(
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={state}/socket", "--terminate", "--daemon"
    )


def grow(name: str, megabytes: int) -> None:
    """Make the data disk of a running machine larger."""
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(30)
        end.connect(str(_beside(name, "qmp")))
        stream = end.makefile("rw", encoding="utf-8")
        for command in (
            {"execute": "qmp_capabilities"},
            {"execute": "block_resize", "arguments": {"device": "data", "size": megabytes << 20}},
        ):
            stream.write(json.dumps(command) + "\n")
            stream.flush()
            while True:
                answer = json.loads(stream.readline())
                if "error" in answer:
                    raise BedError(f"The disk of {name} does not grow: {answer['error'].get('desc')}")
                if "return" in answer:
                    break


def leftovers() -> list[str]:
    """End every machine of this checkout. Returns their names."""
    names = [path.stem for path in HOME.glob("*.pid")]
    remove(*names)
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; errors are one or two lines, never a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tools.vm", description="A real virtual machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start", help="start a machine and wait for it").add_argument("name")
    commands.add_parser("wait", help="wait until a machine has booted").add_argument("name")
    growing = commands.add_parser("grow", help="make the data disk larger")
    growing.add_argument("name")
    growing.add_argument("megabytes", type=int)
    commands.add_parser("remove", help="end machines").add_argument("name", nargs="+")
    commands.add_parser("down", help="end every machine of this checkout")
    options = parser.parse_args(argv)
    try:
        if options.command == "start":
            if reason := obstacle():
                raise BedError(f"No virtual machine can run here: {reason}.")
            start(options.name)
            print(json.dumps(login(options.name)))
        elif options.command == "wait":
            wait_ready(options.name)
        elif options.command == "grow":
            grow(options.name, options.megabytes)
        elif options.command == "remove":
            remove(*options.name)
        else:
            leftovers()
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
