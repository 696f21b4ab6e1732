# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets file of a run: found from the inventory, opened with the run's vault passwords.

Private to the collection: no promise of stability. Runs on the controller only.
"""

from __future__ import annotations

import os
import typing as t

from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.vault import match_encrypt_secret
from ansible_collections.civitas.hosting.plugins.module_utils import _secrets


def secrets_path(path: t.Any, inventory_dir: t.Any) -> str:
    """Return the absolute path of the secrets file: C(path), or C(secrets.yml) in the inventory's directory.

    Raises:
        SecretsError: no text, or relative (or left out) and there is no inventory directory.
    """
    if path is None or path == "":
        path = "secrets.yml"
    if not isinstance(path, str):
        raise _secrets.SecretsError(f"{path!r:.60} is no path of a secrets file", _secrets.ADVICE_PATH)
    path = os.path.expanduser(path)
    if not os.path.isabs(path):
        if not inventory_dir:
            raise _secrets.SecretsError(
                f"nobody knows where the secrets file '{path}' is",
                "Set civitas_secrets_file to an absolute path, or give an inventory with -i.",
            )
        path = os.path.join(str(inventory_dir), path)
    return str(path)


def secrets_file(path: t.Any, inventory_dir: t.Any, loader: t.Any) -> _secrets.SecretsFile:
    """Open the secrets file with the vault passwords that C(loader), Ansible's C(DataLoader), has from the command line."""
    # There is no public way to the passwords of a run; the attribute is the same from 2.17 on.
    vault = loader._vault
    identity = None
    if vault.secrets:
        try:
            identity = match_encrypt_secret(vault.secrets, encrypt_vault_id=constants.DEFAULT_VAULT_ENCRYPT_IDENTITY)
        except AnsibleError as error:
            raise _secrets.SecretsError(
                f"the vault identity to encrypt with is unknown: {error}", "Give --encrypt-vault-id one of the names of --vault-id."
            ) from None
    return _secrets.SecretsFile(secrets_path(path, inventory_dir), vault, identity)
