# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role docker on a given host.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import os
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._container_images import sha256_of

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
# Bridges that the engine made itself; facts write '_' for '-' in the keys only.
_OWN_BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*")


def problems(config: t.Mapping[str, t.Any], facts: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem.

    Args:
        config: the variables of the role without their prefix, and C(compose_packaged).
        facts: the host's facts; C(interfaces) and what they name are used.
    """
    return [
        *_source_problems(config),
        *network_problems(config["bridge_address"], config["address_pools"], host_networks(facts)),
        *moved_bridge(config["bridge_address"], facts),
    ]


def moved_bridge(bridge: str, facts: t.Mapping[str, t.Any]) -> t.List[str]:
    """The engine keeps a bridge that exists, and with live-restore its containers: a new address would reach everybody but them."""
    address = ((facts.get("docker0") or {}).get("ipv4") or {}).get("address")
    if not address or address == bridge.split("/", maxsplit=1)[0]:
        return []
    return [
        f"docker_bridge_address is {bridge}, but docker0 has {address} already. Write that, or, in a maintenance window, on the host: "
        "docker ps --quiet | xargs --no-run-if-empty docker stop; systemctl stop docker.socket docker.service; ip link delete docker0; "
        "then run this again"
    ]


def _source_problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    found = []
    plugin = config["compose_plugin_file"]
    if config["source"] == "vendor":
        if not config["repository_url"]:
            found.append(
                "docker_source is vendor, but docker_repository_url is empty; write the address of the vendor's repository or a mirror"
            )
        key = config["repository_key_file"]
        if not key:
            found.append("docker_source is vendor, but docker_repository_key_file is empty; write its key's path on the controller")
        elif not os.path.isfile(key):
            found.append(f"docker_repository_key_file: there is no file {key} on the controller")
    elif not config["compose_packaged"] and not plugin:
        found.append(
            "this release has no package of Compose 2. Choose one of three: write docker_compose_plugin_file and "
            "docker_compose_plugin_sha256 (a path on the controller; the program of Debian 13's package docker-compose runs here), "
            "or docker_source: vendor, or use a host with Debian 13 or Ubuntu"
        )
    if plugin:
        wanted = config["compose_plugin_sha256"]
        if not os.path.isfile(plugin):
            found.append(f"docker_compose_plugin_file: there is no file {plugin} on the controller")
        elif not re.fullmatch(r"[0-9a-f]{64}", wanted):
            found.append(f"docker_compose_plugin_sha256: write the 64 digits that 'sha256sum {plugin}' prints, if you trust that file")
        elif sha256_of(plugin) != wanted:
            found.append(
                f"docker_compose_plugin_file: {plugin} has the sha256 {sha256_of(plugin)}, not {wanted}; fetch it again or correct the sum"
            )
    return found


def host_networks(facts: t.Mapping[str, t.Any]) -> t.List[t.Tuple[str, Network]]:
    """(interface, network) for every IPv4 address of the host, without those of the engine's own bridges."""
    found: t.List[t.Tuple[str, Network]] = []
    for interface in facts.get("interfaces") or []:
        if _OWN_BRIDGE.fullmatch(interface):
            continue
        entry = facts.get(re.sub(r"[^A-Za-z0-9_]", "_", interface)) or {}
        for address in [entry.get("ipv4") or {}, *(entry.get("ipv4_secondaries") or [])]:
            if address.get("address") and address.get("netmask"):
                found.append((interface, ipaddress.ip_network(f"{address['address']}/{address['netmask']}", strict=False)))
    return found


def network_problems(bridge: str, pools: t.Sequence[t.Mapping[str, t.Any]], host: t.Iterable[t.Tuple[str, Network]]) -> t.List[str]:
    """What is wrong with the engine's networks, among themselves and with the networks that the host is in."""
    found = []
    own: t.List[t.Tuple[str, Network]] = []
    try:
        interface = ipaddress.ip_interface(bridge)
        if interface.ip in (interface.network.network_address, interface.network.broadcast_address) or "/" not in bridge:
            raise ValueError
        own.append(("docker_bridge_address", interface.network))
    except ValueError:
        found.append(f"docker_bridge_address: '{bridge}' is not the address of a host with a prefix length; write it like 172.30.0.1/24")
    if not pools:
        found.append("docker_address_pools is empty; write at least one, like {base: 172.30.128.0/17, size: 24}")
    for number, pool in enumerate(pools):
        name = f"docker_address_pools[{number}]"
        try:
            network = ipaddress.ip_network(pool["base"])
        except ValueError as error:
            found.append(f"{name}: '{pool['base']}' is not a network ({error}); write it like 172.30.128.0/17")
            continue
        if not network.prefixlen <= int(pool["size"]) <= network.max_prefixlen - 2:
            found.append(f"{name}: networks of /{pool['size']} cannot be cut from {network}; write a size from {network.prefixlen} to 30")
        own.append((name, network))
    for position, (name, network) in enumerate(own):
        for other, taken in own[:position]:
            if network.overlaps(taken):
                found.append(f"{name} ({network}) overlaps {other} ({taken}); choose another range for one of them")
        for other, taken in host:
            if network.version == taken.version and network.overlaps(taken):
                found.append(f"{name} ({network}) overlaps {taken}, reached through {other}; choose one that the site does not use")
    return found
