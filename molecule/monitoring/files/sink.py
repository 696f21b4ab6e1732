# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what is sent to it, a line of JSON each, in /srv/story/heard.jsonl.

Mail comes over TLS at 587, messages of a chat over TLS at 9443, and at 9080 in plain what the service outside hears.
"""

import email
import email.policy
import http.server
import json
import os
import socket
import ssl
import threading
import time

from aiosmtpd.controller import Controller

CERTIFICATE = "/etc/civitas/certificates/sink/"
LOCK = threading.Lock()


def keep(**heard):
    with LOCK, open("/srv/story/heard.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), **heard}) + "\n")


def context():
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(CERTIFICATE + "fullchain.pem", CERTIFICATE + "key.pem")
    return found


class Messages(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        keep(way="heartbeat" if self.path.startswith("/heartbeat/") else "chat", path=self.path, body=body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        """The path is a secret, and the journal is searched for it."""


class Mail:
    async def handle_DATA(self, _server, session, envelope):
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text = found.get_body(("plain",)).get_content()
        keep(way="mail", tls=session.ssl is not None, to=envelope.rcpt_tos, subject=str(found["Subject"]), text=text)
        return "250 taken"


plain = http.server.ThreadingHTTPServer(("127.0.0.1", 9080), Messages)
guarded = http.server.ThreadingHTTPServer(("0.0.0.0", 9443), Messages)
guarded.socket = context().wrap_socket(guarded.socket, server_side=True, do_handshake_on_connect=False)
for server in (plain, guarded):
    threading.Thread(target=server.serve_forever, daemon=True).start()
Controller(
    Mail(), hostname="0.0.0.0", port=587, tls_context=context(), require_starttls=True, server_hostname="smarthost.records.test"
).start()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
threading.Event().wait()
