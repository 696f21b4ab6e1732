# SPDX-License-Identifier: GPL-3.0-or-later
"""A smarthost that is good, or wrong in one way (see MODES); `hang`, which says nothing; `chat`, which takes webhooks.

What comes is kept in /srv/sink, a line of JSON each: mail.jsonl, chat.jsonl, and said.jsonl with all that clients say and whether it was
in clear.
"""

import http.server
import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

HERE = Path("/srv/sink")
ADDRESS = "127.0.0.2"
# Certificate (none: no STARTTLS) and what is answered to a recipient.
MODES = {
    "good": ("right", ""),
    "clear": ("", ""),
    "selfsigned": ("selfsigned", ""),
    "expired": ("expired", ""),
    "wrongname": ("wrongname", ""),
    "oldtls": ("right", ""),
    "login": ("right", ""),
    "later": ("right", "450 4.2.0 come back later"),
    "never": ("right", "550 5.7.1 sending is not allowed any more"),
}


def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def keep(name, **values):
    with (HERE / name).open("a") as file:
        file.write(json.dumps({"time": time.time(), **values}) + "\n")


def context(name):
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(HERE / f"{name}.pem")
    return found


def smarthost(mode):
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, AuthResult

    certificate, answer = MODES[mode]

    class Smarthost:
        async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
            if answer:
                return answer
            if address.startswith("nobody@"):
                return "550 5.1.1 no such person"
            envelope.rcpt_tos.append(address)
            return "250 taken"

        async def handle_DATA(self, server, session, envelope):
            keep("mail.jsonl", tls=session.ssl is not None, user=str(session.auth_data), sender=envelope.mail_from, to=envelope.rcpt_tos,
                 raw=envelope.content.decode())  # fmt: skip
            return "250 taken"

    class Listening(SMTP):
        def data_received(self, data):
            clear = self.session is None or self.session.ssl is None
            keep("said.jsonl", mode=mode, clear=clear, said=data.decode(errors="replace"))
            super().data_received(data)

    def authenticate(server, session, envelope, mechanism, data):
        good = mode != "login" and data.login == b"registry" and data.password == b"canary-smtp-password: # $1"
        return AuthResult(success=good, handled=False, auth_data=data.login.decode())

    tls = context(certificate) if certificate else None
    if mode == "oldtls":
        tls.set_ciphers("ALL:@SECLEVEL=0")
        tls.minimum_version, tls.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1

    class Listener(Controller):
        def factory(self):
            # Without TLS it offers a login in clear, as a bad one would.
            options = {"tls_context": tls, "require_starttls": bool(tls), "auth_required": bool(tls), "auth_require_tls": bool(tls)}
            return Listening(self.handler, hostname="smarthost.test", authenticator=authenticate, **options)

    Listener(Smarthost(), hostname=ADDRESS, port=587).start()
    ready()
    while True:
        time.sleep(3600)


class Chat(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        """The path is a secret, and the journal is searched for it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        keep("chat.jsonl", path=self.path, body=json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


def chat():
    server = http.server.ThreadingHTTPServer(("127.0.0.3", 8443), Chat)
    server.socket = context("chat").wrap_socket(server.socket, server_side=True)
    ready()
    server.serve_forever()


def hang():
    with socket.create_server((ADDRESS, 587)):
        ready()
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    special = {"chat": chat, "hang": hang}
    special[sys.argv[1]]() if sys.argv[1] in special else smarthost(sys.argv[1])
