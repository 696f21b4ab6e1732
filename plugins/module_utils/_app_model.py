# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service model of an application: what is wrong with it, and what Compose gets to read.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._container_images import list_problems, name_problem

Service = t.Mapping[str, t.Any]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Environment variables that hold a secret; NAME_FILE, which names the file with it, is the right way.
_SECRET_KEY = re.compile(r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|PRIVATE_KEY|API_KEY|ACCESS_KEY|CREDENTIALS)$", re.IGNORECASE)
# A password inside a URL.
_SECRET_VALUE = re.compile(r"://[^/@:\s]*:[^/@\s]+@")
# What would open the host or leave the model, and what to write instead.
# What services call the host, by what it has for them: the name in the database's certificate, and the mail relay.
HOST_NAMES = ("database.internal", "mail.internal")

_REFUSED = {
    "build": "images are not built on servers; give 'image'",
    "container_name": "Compose names containers by application and service",
    "device_cgroup_rules": "devices of the host are not confined; remove it",
    "devices": "a device of the host is not confined; let the host use it and mount a directory with the result",
    "env_file": "write 'environment'; what is secret goes to app_secrets",
    "links": "services reach each other by their names",
    "networks": "all services of an application share its one network; remove it",
    "network_mode": "a container on the host's network is not confined; publish ports on 127.0.0.1",
    "pid": "a container must not see the host's processes",
    "privileged": "a privileged container is root on the host; name single capabilities in cap_add",
    "restart": "the role sets it",
    "userns_mode": "the role sets it",
}
# The same for the value 'host'.
_REFUSED_HOST = {
    "cgroup": "with the host's control groups a container sees those of all others; write private",
    "ipc": "the host's shared memory is everybody's; write private, and shm_size for more of it",
    "uts": "a container must not rename the host; write hostname for a name of its own",
}
# Capabilities with which root of the container is root of the host, or nearly.
_CAPABILITIES = ("ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE")
# Directories of the host that are not mounted as a whole, and those of which nothing is mounted.
_HOST_DIRECTORIES = ("/", "/dev", "/etc", "/home", "/run", "/usr", "/var", "/var/lib", "/var/run")
_HOST_TREES = ("/boot", "/proc", "/root", "/sys", "/var/lib/docker")
_ENGINE_SOCKETS = ("docker.sock", "containerd.sock")
_JOB_RUNS = ("once", "every_release")
# Files of the host that all services get, by the variable that names them.
_MOUNTED = {"ca_file": "/run/civitas/ca.pem", "trust_file": "/run/civitas/trust.pem"}


def app_model(app: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Judge and complete a service model.

    Args:
        app: C(name), C(services) (Compose notation), C(images) (those with archives), C(secrets) and C(files) (names only), C(jobs),
            C(ca_file) and C(trust_file) ('' for none), C(secrets_directory), C(files_directory).

    Returns:
        C(problems), a list of sentences; C(compose), the Compose file as a mapping; C(images), all images with their archives.
        The last two are meaningful only without problems.
    """
    problems = _problems(app)
    if problems:
        return {"problems": problems, "compose": {}, "images": []}
    return {"problems": [], "compose": _compose(app), "images": _images(app)}


def _images(app: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    """The images with archives, and those that only services name, which are pulled."""
    listed = [dict(image) for image in app["images"]]
    known = {image["name"] for image in listed}
    others = sorted({str(service["image"]) for service in app["services"].values()} - known)
    return [*listed, *({"name": name} for name in others)]


# What is wrong


def _problems(app: t.Mapping[str, t.Any]) -> t.List[str]:
    found: t.List[str] = []
    if not _NAME.fullmatch(app["name"]):
        found.append(f"app_name: '{app['name']}' cannot name a project; write lower-case letters, digits, - and _, a letter or digit first")
    if not app["services"]:
        found.append("app_services is empty; write at least one service with image and healthcheck")
    found += [f"app_images: {problem}" for problem in list_problems(app["images"])]
    for kind in ("secrets", "files"):
        names = app[kind]
        for name in names:
            if not _FILE_NAME.fullmatch(name):
                found.append(f"app_{kind}: '{name}' cannot name a file; write letters, digits, '.', '_' and '-', without a path")
        found += [f"app_{kind}: '{name}' is listed twice; remove one" for name in sorted({name for name in names if names.count(name) > 1})]
    for name, service in app["services"].items():
        found += [f"app_services.{name}{problem}" for problem in _service_problems(name, service, app)]
    found += _job_problems(app)
    return found


def _service_problems(name: str, service: Service, app: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """Problems, each beginning with the path below the service."""
    if not _NAME.fullmatch(name):
        yield ": cannot name a service; write lower-case letters, digits, - and _"
    if not isinstance(service, t.Mapping):
        yield ": is no mapping; write image, healthcheck and what else Compose knows"
        return
    for key, instead in _REFUSED.items():
        if service.get(key):
            yield f".{key}: {instead}"
    for key, instead in _REFUSED_HOST.items():
        if service.get(key) == "host":
            yield f".{key}: {instead}"
    if not service.get("image"):
        yield ".image: is missing; write repository:tag"
    else:
        problem = name_problem(str(service["image"]))
        if problem:
            yield f".image: {problem}"
    check = service.get("healthcheck")
    if not isinstance(check, t.Mapping) or not check.get("test") or check.get("disable"):
        yield ".healthcheck: is missing; write 'test', a command inside the container that fails while the service cannot do its work"
    for port in service.get("ports") or []:
        problem = port_problem(port)
        if problem:
            yield f".ports: {problem}"
    for key, value in _environment(service).items():
        if (_SECRET_KEY.search(key) and value) or _SECRET_VALUE.search(value):
            yield (
                f".environment.{key}: looks like a secret, and everybody who may inspect the container could read it; "
                "write its value to app_secrets, list it in 'secrets', and point the program to /run/secrets/<name>"
            )
    for kind, mine in (("secrets", "secrets"), ("configs", "files")):
        for entry in service.get(kind) or []:
            source = entry.get("source") if isinstance(entry, t.Mapping) else entry
            if source not in app[mine]:
                yield f".{kind}: '{source}' is not in app_{mine}; add it there with its content"
    for volume in service.get("volumes") or []:
        source = str(volume.get("source") or "") if isinstance(volume, t.Mapping) else str(volume).split(":", maxsplit=1)[0]
        if _opens_the_host(source):
            yield (
                f".volumes: '{volume}' hands the engine or the whole host to the container; "
                "mount only the directory that it needs, such as /srv/<name>, or a named volume"
            )
    for capability in service.get("cap_add") or []:
        if _capability(capability) in _CAPABILITIES:
            yield f".cap_add: {capability} is as good as root on the host; write the one it needs, such as NET_BIND_SERVICE"
    for option in service.get("security_opt") or []:
        key, _separator, value = str(option).replace(":", "=", 1).partition("=")
        if value == "unconfined":
            yield f".security_opt: '{option}' takes the engine's confinement away; remove it, or name a profile of your own"
        elif key == "no-new-privileges" and value == "false":
            yield f".security_opt: '{option}' lets programs gain privileges; write no-new-privileges:true and use cap_add"
    for path in _unescaped(service):
        yield f"{path}: Compose would replace what follows '$'; write '$$' for a dollar sign"


def _opens_the_host(source: str) -> bool:
    """Whether a source of a volume, however it is spelled, is the engine's or a directory of the system. Names of volumes are not."""
    if not source.startswith(("/", ".", "~")):
        return False
    # Compose takes ~ for root's home and other paths as relative to the application's directory.
    absolute = posixpath.join("/srv/civitas/apps/app", "/root" + source[1:] if source.startswith("~") else source)
    # POSIX gives two leading slashes a meaning of their own; Linux does not.
    path = "/" + posixpath.normpath(absolute).lstrip("/")
    return path in _HOST_DIRECTORIES or path.endswith(_ENGINE_SOCKETS) or any(f"{path}/".startswith(f"{tree}/") for tree in _HOST_TREES)


def _capability(name: t.Any) -> str:
    upper = str(name).upper()
    return upper[4:] if upper.startswith("CAP_") else upper


def _environment(service: Service) -> t.Dict[str, str]:
    """Both notations of Compose, a mapping or a list of NAME=value."""
    environment = service.get("environment") or {}
    if isinstance(environment, t.Mapping):
        return {str(key): "" if value is None else str(value) for key, value in environment.items()}
    return {key: value for key, _equals, value in (str(entry).partition("=") for entry in environment)}


def _unescaped(value: t.Any, path: str = "") -> t.Iterator[str]:
    """Where a single '$' stands."""
    if isinstance(value, t.Mapping):
        for key, part in value.items():
            yield from _unescaped(part, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _unescaped(part, path)
    elif isinstance(value, str) and "$" in value.replace("$$", ""):
        yield path


def port_problem(port: t.Any) -> str:
    """Why a published port, in either notation of Compose, is refused; empty when it is bound to a loopback address."""
    instead = "only the edge is public; write '127.0.0.1:<port of the host>:<port of the container>'"
    if isinstance(port, t.Mapping):
        host = str(port.get("host_ip") or "")
    else:
        found = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[\]]*)):[^:]+:[^:]+", str(port))
        host = (found["six"] or found["four"] or "") if found else ""
    if not host:
        return f"'{port}' names no address and would be open to everybody: {instead}"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        return f"'{port}': '{host}' is no address: {instead}"
    return "" if loopback else f"'{port}' is reachable from outside of the host: {instead}"


def _job_problems(app: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    seen: t.Set[str] = set()
    for job in app["jobs"]:
        name = job["name"]
        if not _FILE_NAME.fullmatch(name):
            yield f"app_jobs: '{name}' cannot name a job; write letters, digits, '.', '_' and '-'"
        if name in seen:
            yield f"app_jobs: '{name}' is listed twice; a job is known by its name, choose another"
        seen.add(name)
        if job["service"] not in app["services"]:
            yield f"app_jobs.{name}: there is no service '{job['service']}'; write one of {', '.join(app['services'])}"
        if job.get("run", "once") not in _JOB_RUNS:
            yield f"app_jobs.{name}.run: '{job['run']}' is unknown; write one of {', '.join(_JOB_RUNS)}"
        for secret in job.get("secrets") or []:
            if secret not in app["secrets"]:
                yield f"app_jobs.{name}.secrets: there is no '{secret}' in app_secrets; add it there, or remove it"


# What Compose reads


def _compose(app: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    mounted = {target: app[source] for source, target in _MOUNTED.items() if app[source]}
    services = {name: _service(service, mounted) for name, service in app["services"].items()}
    model: t.Dict[str, t.Any] = {"name": app["name"], "services": services}
    for section, mine in (("secrets", "secrets"), ("configs", "files")):
        if app[mine]:
            model[section] = {name: {"file": f"{app[mine + '_directory']}/{name}"} for name in app[mine]}
    volumes = sorted({source for service in services.values() for source in map(_named_volume, service.get("volumes") or []) if source})
    if volumes:
        model["volumes"] = dict.fromkeys(volumes)
    return model


def _named_volume(volume: t.Any) -> str:
    if isinstance(volume, t.Mapping):
        return str(volume.get("source") or "") if volume.get("type", "volume") == "volume" else ""
    source, _colon, target = str(volume).partition(":")
    return source if target and not source.startswith(("/", ".", "~")) else ""


def _service(service: Service, mounted: t.Mapping[str, str]) -> t.Dict[str, t.Any]:
    """The service with the defaults of confinement, and files of the host by their path in it; what the service says itself wins."""
    result: t.Dict[str, t.Any] = {
        "cap_drop": ["ALL"],
        "pull_policy": "never",
        "read_only": True,
        "restart": "unless-stopped",
        "security_opt": ["no-new-privileges:true"],
        **service,
    }
    if result["read_only"]:
        result.setdefault("tmpfs", ["/tmp"])
    result["extra_hosts"] = [*_hosts(service), *(f"{name}:host-gateway" for name in HOST_NAMES)]
    if mounted:
        # The long notation: the short one makes an empty directory of a file that is missing.
        bind = {"type": "bind", "read_only": True, "bind": {"create_host_path": False}}
        mounts = [{**bind, "source": source, "target": target} for target, source in mounted.items()]
        result["volumes"] = [*(service.get("volumes") or []), *mounts]
    return result


def _hosts(service: Service) -> t.List[str]:
    hosts = service.get("extra_hosts") or []
    listed = [f"{name}:{address}" for name, address in hosts.items()] if isinstance(hosts, t.Mapping) else [str(entry) for entry in hosts]
    return [entry for entry in listed if re.split("[:=]", entry)[0] not in HOST_NAMES]
