# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes what the host sends: `mail` (SMTP with STARTTLS and a password), `strange` (with another certificate), `hang`, `chat` (HTTPS).

What comes is kept in /srv/sink, a line of JSON each. A file /srv/sink/die makes the relay die once after it has taken a message.
"""

import http.server
import json
import logging
import os
import socket
import ssl
import sys
import time
from pathlib import Path

HERE = Path("/srv/sink")


def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def keep(name, **values):
    with (HERE / name).open("a") as file:
        file.write(json.dumps({"time": time.time(), **values}) + "\n")


def context(name):
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(HERE / f"{name}.pem", HERE / f"{name}.key")
    return found


class Relay:
    async def handle_DATA(self, server, session, envelope):
        keep("mail.jsonl", tls=session.ssl is not None, user=str(session.auth_data), sender=envelope.mail_from, to=envelope.rcpt_tos,
             raw=envelope.content.decode())  # fmt: skip
        if (HERE / "die").exists():
            (HERE / "die").unlink()
            os._exit(1)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    from aiosmtpd.smtp import AuthResult

    good = data.login == b"logins" and data.password == b"canary-smtp-password"
    return AuthResult(success=good, handled=good, auth_data=data.login.decode())


def mail(certificate):
    from aiosmtpd.controller import Controller

    log = logging.getLogger("mail.log")
    log.setLevel(logging.INFO)
    log.addHandler(logging.FileHandler(HERE / "said.log"))
    controller = Controller(Relay(), hostname="127.0.0.1", port=587, tls_context=context(certificate), require_starttls=True,
                            auth_required=True, authenticator=authenticate)  # fmt: skip
    controller.start()
    ready()
    while True:
        time.sleep(3600)


class Chat(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        """The path is a secret, and the journal is searched for it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        keep("chat.jsonl", path=self.path, key=self.headers["Idempotency-Key"], body=json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


def chat():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Chat)
    server.socket = context("right").wrap_socket(server.socket, server_side=True)
    ready()
    server.serve_forever()


def hang():
    with socket.create_server(("127.0.0.1", 587)):
        ready()
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    {"mail": lambda: mail("right"), "strange": lambda: mail("strange"), "chat": chat, "hang": hang}[sys.argv[1]]()
