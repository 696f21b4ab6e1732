# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of the Kinto image: serve, migrate, create-admin, healthcheck.

Everything is configured by one file, so that no secret is ever in an argument or in the environment.
"""

from __future__ import annotations

import argparse
import configparser
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

INI = "/run/secrets/kinto.ini"
ADMIN_PASSWORD = "/run/secrets/admin_password"


def fail(message: str) -> int:
    sys.stderr.write(f"kinto: {message}\n")
    return 1


def serve() -> int:
    # A process with the id 1 ignores SIGTERM unless it asks for it; waitress ends cleanly on SystemExit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from pyramid.scripts import pserve

    return pserve.main(["pserve", "-q", INI]) or 0


def migrate() -> int:
    """Creates or upgrades the tables; nothing happens when they are current."""
    from kinto.core import scripts
    from pyramid.paster import bootstrap, setup_logging

    setup_logging(INI)
    scripts.migrate(bootstrap(INI, options={"command": "migrate"}))
    return 0


def create_admin(name: str) -> int:
    """Gives the account `name` the password from its secret file, and makes the account when there is none."""
    import transaction
    from kinto.core.utils import hmac_digest
    from kinto.plugins.accounts.utils import ACCOUNT_CACHE_KEY, hash_password
    from kinto.plugins.accounts.views import AccountIdGenerator
    from pyramid.paster import bootstrap

    if not AccountIdGenerator().match(name):
        return fail(f"'{name}' cannot name an account: letters, digits and + . @ _ - are allowed, a letter or digit first")
    password = Path(ADMIN_PASSWORD).read_text(encoding="utf-8").rstrip("\n")
    if len(password) < 12:
        return fail(f"the password in {ADMIN_PASSWORD} has less than 12 characters")
    if len(password.encode()) > 72:
        return fail(f"the password in {ADMIN_PASSWORD} has more than 72 bytes, more than bcrypt takes")
    registry = bootstrap(INI, options={"command": "create-user"})["registry"]
    account = {"id": name, "password": hash_password(password)}
    registry.storage.update(resource_name="account", parent_id=name, object_id=name, obj=account)
    registry.permission.add_principal_to_ace(f"/accounts/{name}", "write", f"account:{name}")
    transaction.commit()
    # A password that was right a moment ago is remembered, and for longer whenever it is used.
    registry.cache.delete(hmac_digest(registry.settings["userid_hmac_secret"], ACCOUNT_CACHE_KEY.format(name)))
    sys.stdout.write(f"account {name} has the password of its file\n")
    return 0


def healthcheck() -> int:
    """Asks the running server, which asks its database."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(INI)
    url = f"http://127.0.0.1:{config.get('server:main', 'port', fallback='8888')}/v1/__heartbeat__"
    try:
        with urllib.request.urlopen(url, timeout=12) as response:
            sys.stdout.write(response.read(500).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return fail(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}")
    except OSError as error:
        return fail(f"{url}: {error}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="kinto", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("serve", "migrate", "healthcheck"):
        commands.add_parser(name)
    commands.add_parser("create-admin").add_argument("name")
    arguments = parser.parse_args()
    if not Path(INI).is_file():
        return fail(f"no configuration: mount one to {INI}")
    if arguments.command in ("serve", "healthcheck"):
        return {"serve": serve, "healthcheck": healthcheck}[arguments.command]()
    from kinto.core.storage.exceptions import BackendError

    try:
        return create_admin(arguments.name) if arguments.command == "create-admin" else migrate()
    except BackendError as error:
        return fail(f"the database cannot be used: {error}")


if __name__ == "__main__":
    sys.exit(main())
