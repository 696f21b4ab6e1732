# SPDX-License-Identifier: GPL-3.0-or-later
"""The test bed: servers as systemd containers.

Everything that differs between machines is found out here, at run time: whether an engine answers, whether public images can be pulled,
cgroup version, capabilities, the Debian mirror. Demo, Molecule and bench start their hosts through this module only.

    python -m tools.bed up [DISTRO ...]      engine, network, package cache, images
    python -m tools.bed start NAME DISTRO    one host, ready when the command returns
    python -m tools.bed remove NAME ...      hosts with their anonymous volumes
    python -m tools.bed create               hosts of a Molecule scenario (JSON on stdin)
    python -m tools.bed destroy              their removal (JSON on stdin)
    python -m tools.bed down                 every host of this checkout, virtual machines too, and the package cache
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
LOGS = CACHE / "logs"

NETWORK = "civitas-bed"
CACHE_NAME = "civitas-bed-cache"
CACHE_URL = f"http://{CACHE_NAME}:3142"
LABEL = "civitas.bed"
# Two checkouts on one machine share engine, images and package cache, but never a host.
CHECKOUT = "bed-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]

# What a server's root may do, as far as containers allow: on top of the engine's defaults, without those that no role needs.
# With the bit numbers of linux/capability.h.
CAPABILITIES = {
    "DAC_READ_SEARCH": 2, "LINUX_IMMUTABLE": 9, "NET_BROADCAST": 11, "NET_ADMIN": 12, "IPC_LOCK": 14, "IPC_OWNER": 15, "SYS_RAWIO": 17,
    "SYS_PTRACE": 19, "SYS_PACCT": 20, "SYS_ADMIN": 21, "SYS_BOOT": 22, "SYS_NICE": 23, "SYS_TIME": 25, "SYS_TTY_CONFIG": 26, "LEASE": 28,
    "AUDIT_CONTROL": 30, "MAC_OVERRIDE": 32, "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35, "BLOCK_SUSPEND": 36, "AUDIT_READ": 37,
}  # fmt: skip


@dataclass(frozen=True)
class Distro:
    """A distribution release: the codename of its archive and its public image."""

    codename: str
    public_image: str
    debian: bool


DISTROS = {
    "debian12": Distro("bookworm", "debian:bookworm", True),
    "debian13": Distro("trixie", "debian:trixie", True),
    "ubuntu2204": Distro("jammy", "ubuntu:22.04", False),
    "ubuntu2404": Distro("noble", "ubuntu:24.04", False),
}


class BedError(Exception):
    """The bed cannot be made: what is wrong, and what to do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


# The Makefile hands its own start on, so that the clock covers the whole command and not only this process.
_STARTED = float(os.environ.get("CIVITAS_STARTED") or time.time())


def elapsed() -> float:
    """Seconds since the command that the person typed."""
    return time.time() - _STARTED


def say(text: str) -> None:
    """One line of progress with the elapsed time."""
    print(f"[{elapsed():4.0f} s] {text}", file=sys.stderr, flush=True)


def run(
    *argv: str, timeout: float | None = None, check: bool = True, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command quietly; a failure becomes a BedError with the end of its output."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=env,
            check=False,
        )
    except FileNotFoundError:
        raise BedError(f"The command {argv[0]} is missing.", f"Install it, then repeat: {argv[0]}") from None
    except subprocess.TimeoutExpired:
        raise BedError(f"`{' '.join(argv[:4])} ...` did not end within {timeout:.0f} s.") from None
    if check and done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise BedError(f"`{' '.join(argv[:4])} ...` failed: {' | '.join(lines[-3:])}")
    return done


def docker(*args: str, timeout: float | None = 120, check: bool = True) -> str:
    """Output of a docker command."""
    return run("docker", *args, timeout=timeout, check=check).stdout.strip()


def wait_for(what: str, condition: Callable[[], bool], deadline: float, remedy: str = "") -> None:
    """Poll a condition until it holds; BedError when the deadline (seconds) passes first."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise BedError(f"{what} did not happen within {deadline:.0f} s.", remedy)
        time.sleep(0.3)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One process at a time makes what all checkouts of this user share (engine, images, package cache)."""
    path = Path(tempfile.gettempdir()) / f"civitas-bed-{os.getuid()}.lock"
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# --- engine


def _engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return run("docker", "version", "--format", "{{.Server.Version}}", timeout=20, check=False).returncode == 0
    except BedError:
        return False


def _apt_install(*packages: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say(f"installing {', '.join(packages)} on this machine")
    run("apt-get", "-q", "update", timeout=300, env=environment)
    run("apt-get", "-q", "install", "-y", "--no-install-recommends", *packages, timeout=600, env=environment)


def ensure_engine() -> None:
    """Use the container engine that answers; else, as root on Debian or Ubuntu, install and start one."""
    if _engine_answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise BedError(f"No container engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}.", "Start it, or unset DOCKER_HOST.")
    if os.geteuid() != 0:
        raise BedError(
            "No container engine answers, and only root may start one: run this as root, or start Docker and join its group "
            "(sudo usermod -aG docker $USER, then log in again)."
        )
    with locked():
        if not _engine_answers():
            _start_engine()
    _engine_info.cache_clear()


def _start_engine() -> None:
    if shutil.which("dockerd") is None:
        if shutil.which("apt-get") is None:
            raise BedError("No container engine is installed and this is neither Debian nor Ubuntu: install Docker, start it, and repeat.")
        packages = ["docker.io", "iptables"]
        # Debian 13 has the client in a package of its own.
        if shutil.which("docker") is None and run("apt-cache", "show", "docker-cli", check=False).returncode == 0:
            packages.append("docker-cli")
        _apt_install(*packages)
    if _engine_answers():
        return
    if Path("/run/systemd/system").is_dir():
        say("starting the container engine (systemctl start docker)")
        run("systemctl", "start", "docker", timeout=120)
        wait_for("An answer of the container engine", _engine_answers, 60, "Look at: journalctl -u docker")
        return
    log = CACHE / "dockerd.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"starting the container engine (dockerd, log {log.relative_to(ROOT)})")
    with log.open("ab") as handle:
        # A session of its own: the engine outlives this command and does not get its Ctrl-C.
        process = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=handle, stderr=handle, start_new_session=True, cwd="/")

    def answers() -> bool:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise BedError(f"dockerd ended at once: {lines[-1] if lines else 'without a word'}", f"Its log: {log}")
        return _engine_answers()

    wait_for("An answer of the container engine", answers, 90, f"Its log: {log}")


@functools.lru_cache(maxsize=1)
def _engine_info() -> dict[str, Any]:
    info: dict[str, Any] = json.loads(docker("info", "--format", "{{json .}}"))
    return info


# --- images


def _digest(*parts: str | Path) -> str:
    """Hash of texts and of the files below directories."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for path in sorted(p for p in part.rglob("*") if p.is_file()):
                state.update(f"{path.relative_to(part)}\0{path.stat().st_mode & 0o111}\0".encode() + path.read_bytes())
        else:
            state.update(part.encode() + b"\0")
    return state.hexdigest()[:16]


def _image_has(image: str, digest: str) -> bool:
    found = run("docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}.hash"}}}}', image, check=False, timeout=60)
    return found.returncode == 0 and found.stdout.strip() == digest


def _distro(name: str) -> Distro:
    if name not in DISTROS:
        raise BedError(f"There is no distribution {name!r} in the test bed.", f"Write one of: {', '.join(DISTROS)}")
    return DISTROS[name]


def _build(image: str, digest: str, base: str, context: Path) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"image-{image.replace('/', '-')}.log"
    say(f"building the image {image}")
    with log.open("w") as handle:
        done = subprocess.run(
            ["docker", "build", "--build-arg", f"BASE={base}", "--label", f"{LABEL}.hash={digest}", "--tag", image, str(context)],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=900,
        )
    if done.returncode != 0:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise BedError(f"The image {image} could not be built: {lines[-1] if lines else 'no output'}", f"The whole output: {log}")


def _mirrors(codename: str) -> list[str]:
    """apt source lines for a Debian release from the machine's own mirror; none, for mmdebstrap's own, when the machine is not Debian."""
    archive = security = ""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    own = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') == "debian" and shutil.which("apt-get"):
        targets = run(
            "apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages", check=False, timeout=60
        ).stdout
        for suite, uri in (line.split(" ", 1) for line in targets.splitlines() if " http" in line):
            if suite == own:
                archive = uri.rstrip("/")
            elif suite == f"{own}-security":
                security = uri.rstrip("/")
    if not archive or not security:
        return []
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    return [
        f"deb {key} {archive} {codename} main",
        f"deb {key} {archive} {codename}-updates main",
        f"deb {key} {security} {codename}-security main",
    ]


def ensure_base(name: str) -> str:
    """The bare distribution: pulled where that works, else made from the Debian mirror. Returns the image's name."""
    distro = _distro(name)
    image = f"civitas-bed/base-{name}"
    if run("docker", "image", "inspect", image, check=False, timeout=60).returncode == 0:
        return image
    say(f"pulling {distro.public_image}")
    try:
        pulled = run("docker", "pull", "--quiet", distro.public_image, check=False, timeout=300).returncode == 0
    except BedError:
        pulled = False
    if pulled:
        docker("tag", distro.public_image, image)
        return image
    if not distro.debian:
        raise BedError(
            f"The image {distro.public_image} cannot be pulled, and {name} cannot be made without it.",
            "Give the engine access to a registry that has it, or choose from: debian12 debian13",
        )
    if shutil.which("mmdebstrap") is None or not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise BedError(
                f"The image {distro.public_image} cannot be pulled, and mmdebstrap, which would make it, is missing.",
                "As root: apt-get install mmdebstrap debian-archive-keyring",
            )
        _apt_install("mmdebstrap", "debian-archive-keyring")
    _bootstrap(image, distro.codename)
    return image


def _bootstrap(image: str, codename: str) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"mmdebstrap-{codename}.log"
    say(f"no registry: making {image} from the Debian mirror (about a minute)")
    with log.open("w") as handle:
        maker = subprocess.Popen(
            ["mmdebstrap", "--variant=minbase", "--include=ca-certificates", "--format=tar", codename, "-", *_mirrors(codename)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=handle,
        )
        imported = subprocess.run(
            ["docker", "import", "--change", 'CMD ["/bin/bash"]', "-", f"{image}:making"],
            stdin=maker.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert maker.stdout is not None
        maker.stdout.close()
        failed = maker.wait() != 0 or imported.returncode != 0
    # The name is given last: an import that was cut off never passes for an image.
    if failed:
        run("docker", "image", "rm", "--force", f"{image}:making", check=False)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [imported.stderr.strip()]
        raise BedError(f"mmdebstrap could not make {codename}: {lines[-1]}", f"The whole output: {log}")
    docker("tag", f"{image}:making", f"{image}:latest")
    docker("image", "rm", f"{image}:making")


def ensure_image(name: str) -> str:
    """The image of a bare server with systemd and OpenSSH; made when missing or when its files changed. Returns its name."""
    _distro(name)
    context = ROOT / "tests" / "bed" / "host"
    image = f"civitas-bed/{name}"
    digest = _digest(name, context)
    if not _image_has(image, digest):
        with locked():
            if not _image_has(image, digest):
                _build(image, digest, ensure_base(name), context)
    return image


# --- network and package cache


def _state(container: str) -> str:
    return docker("inspect", "--type", "container", "--format", "{{.State.Status}}", container, check=False)


def _cache_answers() -> bool:
    return run("docker", "exec", CACHE_NAME, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3142", check=False, timeout=30).returncode == 0


def ensure_cache() -> None:
    """The bed's network and one caching proxy in it, left running between commands: no package is downloaded twice."""
    context = ROOT / "tests" / "bed" / "cache"
    image, digest = "civitas-bed/cache", _digest(context)
    if _image_has(image, digest) and _state(CACHE_NAME) == "running" and _cache_answers():
        return
    with locked():
        if run("docker", "network", "inspect", NETWORK, check=False, timeout=60).returncode != 0:
            docker("network", "create", "--label", f"{LABEL}=network", NETWORK)
        if not _image_has(image, digest):
            _build(image, digest, ensure_base("debian13"), context)
            docker("rm", "--force", CACHE_NAME, check=False)
        state = _state(CACHE_NAME)
        if state == "running" and _cache_answers():
            return
        if state:
            docker("rm", "--force", CACHE_NAME)
        say("starting the package cache")
        docker(
            "run", "--detach", "--name", CACHE_NAME, "--network", NETWORK, "--label", f"{LABEL}=cache",
            "--volume", f"{CACHE_NAME}:/var/spool/squid", "--restart", "unless-stopped", image,
        )  # fmt: skip
        wait_for("An answer of the package cache", _cache_answers, 30, f"Look at: docker logs {CACHE_NAME}")


# --- hosts


def _bounding_set() -> int:
    """Capabilities that the engine may hand out, as far as this machine can see; all of them when it cannot."""
    everything = (1 << 64) - 1
    if os.environ.get("DOCKER_HOST", "unix:").split(":")[0] != "unix":
        return everything
    for pidfile in (Path("/run/docker.pid"), Path("/var/run/docker.pid")):
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{int(pidfile.read_text())}/status").read_text()
            return int(next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1], 16)
    return everything


def _host_options() -> list[str]:
    """Options of `docker run` under which systemd, sysctl, nftables and a nested engine work in a container of this machine."""
    info = _engine_info()
    bounding = _bounding_set()
    options = ["--cgroupns", "private", "--tmpfs", "/run", "--tmpfs", "/run/lock", "--volume", "/var/lib/docker"]
    options += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    if any("selinux" in option for option in info.get("SecurityOptions") or []):
        options += ["--security-opt", "label=disable"]
    for capability, bit in CAPABILITIES.items():
        if bounding >> bit & 1:
            options += ["--cap-add", capability]
    if info.get("CgroupVersion") == "1":
        # systemd 256 and later refuse to start on cgroup v1 without it.
        options += ["--env", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
    return options


def start_host(
    name: str,
    distro: str,
    publish: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    *,
    volumes: Sequence[str] = (),
    tmpfs: Sequence[str] = (),
    memory: str = "",
    aliases: Sequence[str] = (),
) -> None:
    """Start a bare server and return when its init has finished booting.

    publish: port of the host -> port on this machine's loopback. labels: added to `civitas.bed=<checkout>`, which they may override.
    volumes, tmpfs, memory: as for `docker run`. aliases: further names, which the network's name server knows. BedError when a container
    of that name exists.
    """
    image = ensure_image(distro)
    ensure_cache()
    if _state(name):
        raise BedError(f"A container {name} exists already.", f"Remove it: python -m tools.bed remove {name}")
    command = ["run", "--detach", "--name", name, "--hostname", name, "--network", NETWORK, *_host_options()]
    for key, value in {LABEL: CHECKOUT, **(labels or {})}.items():
        command += ["--label", f"{key}={value}"]
    for inner, outer in (publish or {}).items():
        command += ["--publish", f"127.0.0.1:{outer}:{inner}"]
    for volume in volumes:
        command += ["--volume", volume]
    for path in tmpfs:
        command += ["--tmpfs", path]
    if memory:
        command += ["--memory", memory]
    for alias in aliases:
        command += ["--network-alias", alias]
    # Values by environment and not by argument: they may be secret.
    environment = {"CIVITAS_BED_APT_PROXY": CACHE_URL, **(env or {})}
    for key in environment:
        command += ["--env", key]
    try:
        run("docker", *command, image, timeout=120, env={**os.environ, **environment})
        wait_ready(name)
    except BedError:
        remove_host(name)
        raise


def wait_ready(name: str, deadline: float = 90) -> None:
    """Wait until the init of a host has finished booting; says which units failed, if any."""
    state = ""

    def booted() -> bool:
        nonlocal state
        if _state(name) != "running":
            logs = run("docker", "logs", "--tail", "3", name, check=False, timeout=30)
            raise BedError(f"The host {name} ended while booting: {' | '.join((logs.stdout + logs.stderr).split(chr(10))).strip(' |')}")
        state = run("docker", "exec", name, "systemctl", "is-system-running", "--wait", check=False, timeout=deadline).stdout.strip()
        return state in ("running", "degraded")

    wait_for(f"The boot of {name}", booted, deadline, f"Look at: docker logs {name}; docker exec {name} systemctl list-jobs")
    if state == "degraded":
        failed = docker("exec", name, "systemctl", "--failed", "--plain", "--no-legend", check=False)
        say(f"{name} is up, but these units failed: {', '.join(line.split()[0] for line in failed.splitlines())}")


def restart_host(name: str, deadline: float = 90) -> None:
    """Reboot a host: an orderly shutdown of its init, then a new boot."""
    docker("restart", "--time", "30", name)
    wait_ready(name, deadline)


def remove_host(*names: str) -> None:
    """Remove hosts with their anonymous volumes; hosts that do not exist are no error."""
    if names:
        run("docker", "rm", "--force", "--volumes", *names, check=False, timeout=120)


def leftovers(*labels: str) -> list[str]:
    """Remove all hosts that carry every one of the labels (`key=value`; default: of this checkout). Returns their names."""
    filters = [item for label in labels or (f"{LABEL}={CHECKOUT}",) for item in ("--filter", f"label={label}")]
    names = docker("ps", "--all", *filters, "--format", "{{.Names}}").split()
    remove_host(*names)
    return names


# --- Molecule


def _platforms() -> tuple[str, list[dict[str, Any]]]:
    """Scenario and platforms that .config/molecule/create.yml hands over."""
    request = json.load(sys.stdin)
    return str(request["scenario"]), list(request["platforms"])


def molecule_create() -> None:
    """Start the platforms of a scenario.

    Keys beside Molecule's own (name, image, groups): published_ports, env, volumes, tmpfs, memory, and of networks the aliases.
    """
    scenario, platforms = _platforms()
    known = {"name", "image", "groups", "published_ports", "env", "volumes", "tmpfs", "memory", "networks"}
    for platform in platforms:
        if unknown := set(platform) - known:
            raise BedError(
                f"Platform {platform['name']}: {', '.join(sorted(unknown))} means nothing to the test bed.", f"Known: {sorted(known)}"
            )
    ensure_engine()
    for platform in platforms:
        say(f"starting {platform['name']}")
        start_host(
            platform["name"],
            platform["image"].removeprefix("civitas-bed/"),
            publish={int(inner): int(outer) for outer, inner in (port.split(":") for port in platform.get("published_ports", []))},
            env=platform.get("env"),
            labels={f"{LABEL}.scenario": scenario},
            volumes=platform.get("volumes", ()),
            tmpfs=platform.get("tmpfs", ()),
            memory=platform.get("memory", ""),
            aliases=[alias for network in platform.get("networks", ()) for alias in network.get("aliases", ())],
        )


def molecule_destroy() -> None:
    """Remove the platforms of a scenario, and what earlier versions of it left."""
    scenario, platforms = _platforms()
    if _engine_answers():
        remove_host(*(platform["name"] for platform in platforms))
        leftovers(f"{LABEL}={CHECKOUT}", f"{LABEL}.scenario={scenario}")


# --- command line


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; errors are one or two lines, never a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tools.bed", description="The test bed: servers as systemd containers.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="engine, network, package cache, images")
    up.add_argument("distro", nargs="*", default=["debian12", "debian13"])
    start = commands.add_parser("start", help="start one host")
    start.add_argument("name")
    start.add_argument("distro", choices=list(DISTROS))
    start.add_argument(
        "--publish", metavar="INNER:OUTER", action="append", default=[], help="a port of the host on this machine's loopback"
    )
    remove = commands.add_parser("remove", help="remove hosts")
    remove.add_argument("name", nargs="+")
    commands.add_parser("create", help="hosts of a Molecule scenario (JSON on stdin)")
    commands.add_parser("destroy", help="remove the hosts of a Molecule scenario (JSON on stdin)")
    commands.add_parser("down", help="remove every host of this checkout and the package cache")
    options = parser.parse_args(argv)
    try:
        if options.command == "create":
            molecule_create()
        elif options.command == "destroy":
            molecule_destroy()
        elif options.command == "remove":
            remove_host(*options.name)
        elif options.command == "down":
            # It builds on this module.
            from tools import vm

            vm.leftovers()
            if _engine_answers():
                leftovers()
                docker("rm", "--force", "--volumes", CACHE_NAME, check=False)
        else:
            ensure_engine()
            if options.command == "up":
                for distro in options.distro:
                    ensure_image(distro)
                ensure_cache()
                say(f"ready: {', '.join(options.distro)}")
            else:
                ports = (port.split(":") for port in options.publish)
                start_host(options.name, options.distro, {int(inner): int(outer) for inner, outer in ports})
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _main() -> NoReturn:
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    _main()
