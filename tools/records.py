# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the demonstration's records application: the job of the server, done from outside, with every certificate verified."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUCKET, COLLECTION = "registry", "births"


class RecordsError(Exception):
    """The application did not do its job."""


class Records:
    """The application behind one public address.

    name: the host name that the certificate must be for; address and port: where it is reached; ca_file: the only trusted CA.
    """

    def __init__(self, name: str, port: int, ca_file: Path, address: str | None = None, timeout: float = 10) -> None:
        self.name, self.port, self.address, self.timeout = name, port, address or name, timeout
        self.context = ssl.create_default_context(cafile=str(ca_file))
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def call(self, method: str, path: str, user: tuple[str, str] | None = None, body: Any = None) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower case) and decoded JSON body of one request. Raises OSError (also ssl.SSLError) when it cannot be made."""
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if user:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
        connection = http.client.HTTPSConnection(self.name, self.port, timeout=self.timeout, context=self.context)
        raw = socket.create_connection((self.address, self.port), timeout=self.timeout)
        try:
            connection.sock = self.context.wrap_socket(raw, server_hostname=self.name)
            connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
            response = connection.getresponse()
            text = response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
            raw.close()
        is_json = (response.getheader("content-type") or "").startswith("application/json")
        return response.status, {key.lower(): value for key, value in response.getheaders()}, json.loads(text) if is_json and text else text

    def wait(self, deadline: float, until: Callable[[], bool] | None = None) -> float:
        """Wait until the application is healthy (or `until` is true), for `deadline` seconds, else RecordsError. Returns the seconds."""
        started = time.monotonic()
        last = "no answer"
        while time.monotonic() - started < deadline:
            try:
                if until is not None:
                    if until():
                        return time.monotonic() - started
                    last = "the condition is not met"
                else:
                    status, _headers, body = self.call("GET", "/v1/__heartbeat__")
                    if status == 200:
                        return time.monotonic() - started
                    last = f"status {status}: {body}"
            except OSError as error:
                last = f"{type(error).__name__}: {error}"
            time.sleep(0.25)
        raise RecordsError(f"https://{self.name}:{self.port} was not healthy within {deadline:g} s; last: {last}")

    def create_account(self, administrator: tuple[str, str], user: tuple[str, str]) -> None:
        status, _headers, body = self.call("PUT", f"/v1/accounts/{user[0]}", administrator, {"data": {"password": user[1]}})
        self._expect("create the account", status, body, 200, 201)

    def create_collection(self, administrator: tuple[str, str], user: str) -> None:
        """A collection in which the account may create records."""
        status, _headers, body = self.call("PUT", f"/v1/buckets/{BUCKET}", administrator, {"data": {}})
        self._expect("create the bucket", status, body, 200, 201)
        wanted = {"permissions": {"record:create": [f"account:{user}"]}}
        status, _headers, body = self.call("PUT", f"/v1/buckets/{BUCKET}/collections/{COLLECTION}", administrator, wanted)
        self._expect("create the collection", status, body, 200, 201)

    def create_record(self, user: tuple[str, str], data: dict[str, Any]) -> str:
        status, _headers, body = self.call("POST", f"/v1/buckets/{BUCKET}/collections/{COLLECTION}/records", user, {"data": data})
        self._expect("create the record", status, body, 201)
        return str(body["data"]["id"])

    def read_record(self, user: tuple[str, str], record: str) -> dict[str, Any]:
        status, _headers, body = self.call("GET", f"/v1/buckets/{BUCKET}/collections/{COLLECTION}/records/{record}", user)
        self._expect("read the record", status, body, 200)
        found: dict[str, Any] = body["data"]
        return found

    @staticmethod
    def _expect(what: str, status: int, body: Any, *wanted: int) -> None:
        if status not in wanted:
            raise RecordsError(f"could not {what}: the application answered {status}: {body}")


class Story:
    """One registrar with an account of their own and one record: written once, then read back after whatever happens to the server."""

    def __init__(self, records: Records, administrator: tuple[str, str]) -> None:
        self.records = records
        self.user = (f"registrar-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex)
        self.data = {"kind": "birth", "reference": uuid.uuid4().hex}
        records.create_account(administrator, self.user)
        records.create_collection(administrator, self.user[0])
        self.record = records.create_record(self.user, self.data)

    def is_kept(self) -> bool:
        """Whether the record is read back as it was written."""
        found = self.records.read_record(self.user, self.record)
        return {key: found.get(key) for key in self.data} == self.data
