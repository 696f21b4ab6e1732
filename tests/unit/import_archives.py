# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives as OpenCRVS and Primero make them, with the same programs and in the same layout.

MongoDB's programs are in no distribution that is tested on, so its archives are written here, as mongo-tools states their format.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.unit.postgres_servers import needs_postgres

MISSING = [name for name in ("openssl", "tar", "gzip") if shutil.which(name) is None]
needs_programs = [*needs_postgres, pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")]
PASSPHRASE = b"a passphrase with spaces"
DAY = "2026-03-01"
_MOMENT = 1772323200 + 300


# --- MongoDB


def bson(**values: object) -> bytes:
    body = b""
    for name, value in values.items():
        key = name.encode() + b"\0"
        if isinstance(value, bool):
            body += b"\x08" + key + bytes([value])
        elif isinstance(value, int):
            body += b"\x12" + key + struct.pack("<q", value)
        else:
            text = str(value).encode() + b"\0"
            body += b"\x02" + key + struct.pack("<i", len(text)) + text
    return struct.pack("<i", len(body) + 5) + body + b"\0"


END = b"\xff\xff\xff\xff"


def mongo(database: str, collections: Mapping[str, int], complete: bool = True) -> bytes:
    """As C(mongodump --gzip --archive) writes it: two collections take turns."""
    parts = [b"\x6d\xe2\x99\x81", bson(concurrent_collections=4, version="0.1", server_version="4.4.29", tool_version="100.9.4")]
    parts += [bson(db=database, collection=name, metadata='{"indexes":[]}', size=count, type="") for name, count in collections.items()]
    parts.append(END)
    for turn in (0, 1):
        for name, count in collections.items():
            half = count // 2 if turn == 0 else count - count // 2
            parts.append(bson(db=database, collection=name, EOF=False, CRC=0))
            parts += [bson(_id=number, name=f"child {number}") for number in range(half)]
            parts.append(END)
    for name in list(collections) if complete else list(collections)[1:]:
        parts += [bson(db=database, collection=name, EOF=True, CRC=-5), END]
    return subprocess.run(["gzip", "-c"], input=b"".join(parts), capture_output=True, check=True).stdout


# --- OpenCRVS


def tar(directory: Path, archive: Path, *words: str) -> None:
    subprocess.run(["tar", "-czf", str(archive), "-C", str(directory), *(words or ["."])], check=True)


def encrypt(archive: Path, target: Path, passphrase: bytes = PASSPHRASE) -> Path:
    """As the scripts of OpenCRVS call it."""
    command = ["openssl", "enc", "-aes-256-cbc", "-salt", "-pbkdf2", "-in", str(archive), "-out", str(target), "-pass", "stdin"]
    subprocess.run(command, input=passphrase, check=True)
    return target


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (_MOMENT, _MOMENT))


def influx(folder: Path) -> None:
    write(folder / "20260301T000100Z.meta", b"m" * 204)
    write(folder / "source/shard", b"points")
    tar(folder / "source", folder / "20260301T000100Z.s2.tar.gz", "shard")
    shutil.rmtree(folder / "source")
    size = (folder / "20260301T000100Z.s2.tar.gz").stat().st_size
    os.utime(folder / "20260301T000100Z.s2.tar.gz", (_MOMENT, _MOMENT))
    manifest = {
        "meta": {"fileName": "20260301T000100Z.meta", "size": 204},
        "limited": False,
        "files": [
            {
                "database": "ocrvs",
                "policy": "autogen",
                "shardID": 2,
                "fileName": "20260301T000100Z.s2.tar.gz",
                "size": size,
                "lastModified": 0,
            }
        ],
    }
    write(folder / "20260301T000100Z.manifest", json.dumps(manifest))


def search(folder: Path, label: str, state: int = 1) -> None:
    """A repository of Elasticsearch of the type fs."""
    index = {"min_version": "7.12.0", "snapshots": [{"name": f"snapshot_{label}", "uuid": "Xa1", "state": state}], "indices": {}}
    write(folder / "index-3", json.dumps(index))
    write(folder / "index.latest", struct.pack(">q", 3))
    write(folder / "snap-Xa1.dat", b"snap")
    write(folder / "indices/u1/0/__data", b"segment" * 100)


SWARM_DATABASES = ("hearth-dev", "events", "user-mgnt", "application-config", "metrics", "webhooks", "performance")


def swarm_tree(base: Path, dump: bytes, label: str = DAY) -> Path:
    """What C(backup.sh) gathers in /tmp."""
    raw = base / "raw"
    search(raw / "elasticsearch", label)
    influx(raw / "influxdb")
    for name in ("minio", "vsexport"):
        write(base / name / "ocrvs/a photograph.jpg/xl.meta", os.urandom(2000))
        write(base / name / ("ocrvs/" + "long" * 40), b"a long name")
        (raw / name).mkdir()
        tar(base / name, raw / name / f"ocrvs-{label}.tar.gz")
        os.utime(raw / name / f"ocrvs-{label}.tar.gz", (_MOMENT, _MOMENT))
    for number, name in enumerate(SWARM_DATABASES):
        write(raw / f"mongo/{name}-{label}.gz", mongo(name, {"composition": 5 + number, "patient": 3}))
    write(raw / f"postgres/events-{label}.dump", dump)
    return raw


def swarm(base: Path, raw: Path, label: str = DAY, passphrase: bytes = PASSPHRASE) -> Path:
    tar(raw, base / f"{label}.tar.gz")
    found = encrypt(base / f"{label}.tar.gz", base / f"{label}.tar.gz.enc", passphrase)
    (base / f"{label}.tar.gz").unlink()
    return found


# --- Primero


def primero(base: Path, label: str, dump: bytes, files: Mapping[str, bytes]) -> Path:
    """As C(backup.sh) of primero-x-localized makes it."""
    name = f"primero_backup.{label}"
    write(base / name / f"primero_backup_postgres_{label}.dump", dump)
    write(base / name / "backup-attachments/attachment-1.rb", "# how to load them")
    for path, content in files.items():
        write(base / name / "backup-attachments" / path, content)
    subprocess.run(["tar", "czf", f"{name}.tar.gz", name], cwd=base, check=True)
    shutil.rmtree(base / name)
    return base / f"{name}.tar.gz"


PRIMERO_SCHEMA = """
CREATE TABLE active_storage_blobs (id bigserial PRIMARY KEY, key varchar NOT NULL, filename varchar NOT NULL, content_type varchar,
  metadata text, byte_size bigint NOT NULL, checksum varchar NOT NULL, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE active_storage_attachments (id bigserial PRIMARY KEY, name varchar NOT NULL, record_type varchar NOT NULL,
  record_id bigint NOT NULL, blob_id bigint NOT NULL REFERENCES active_storage_blobs, created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE attachments (id bigserial PRIMARY KEY, attachment_type varchar, record_type varchar, record_id uuid, field_name varchar,
  description varchar, comments varchar, metadata jsonb);
CREATE TABLE cases (id uuid PRIMARY KEY, data jsonb DEFAULT '{}');
"""


def primero_rows(rows: Sequence[tuple[int, str, str, str, bytes]]) -> str:
    """SQL for attachments: number, kind and number of the record, name of the file, content."""
    sql = []
    for number, kind, record, name, content in rows:
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        quoted = name.replace("'", "''")
        sql.append(
            f"INSERT INTO active_storage_blobs (id, key, filename, byte_size, checksum)"
            f" VALUES ({number}, 'key{number:04d}abcd', '{quoted}', {len(content)}, '{md5}');"
        )
        if kind == "Agency":
            owner = ("Agency", record)
        else:
            owner = ("Attachment", str(number))
            sql.append(
                "INSERT INTO attachments (id, record_type, record_id, comments)"
                f" VALUES ({number}, '{kind}', '{record}', E'a\\tb\\\\c\\nd');"
            )
        sql.append(
            "INSERT INTO active_storage_attachments (name, record_type, record_id, blob_id)"
            f" VALUES ('file', '{owner[0]}', {owner[1]}, {number});"
        )
    return "".join(sql)
