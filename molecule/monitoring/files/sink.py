# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps what is sent to it, one JSON line for each request: over TLS at 9443 as a chat, in plain at 9080 as the service outside."""

import http.server
import json
import ssl
import sys
import threading
import time

CERTIFICATE = "/etc/civitas/certificates/target/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with open(sys.argv[1], "a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "path": self.path, "body": json.loads(body)}) + "\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


plain = http.server.ThreadingHTTPServer(("127.0.0.1", 9080), Handler)
guarded = http.server.ThreadingHTTPServer(("127.0.0.1", 9443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE + "fullchain.pem", CERTIFICATE + "key.pem")
guarded.socket = context.wrap_socket(guarded.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=plain.serve_forever, daemon=True).start()
guarded.serve_forever()
