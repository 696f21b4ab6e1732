# SPDX-License-Identifier: GPL-3.0-or-later
"""A chat: takes messages over HTTPS and writes them to a file, one a line."""

from __future__ import annotations

import http.server
import json
import ssl


class Chat(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("/srv/sink/chat.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(body) + "\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """The path is the secret."""


server = http.server.HTTPServer(("127.0.0.1", 8443), Chat)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/sink/chat.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
