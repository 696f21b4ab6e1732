# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that answers every request with the request as it arrived, on two ports.

`/status/N` answers with that status, `/login` redirects and sets a cookie, as applications do that do not know of a prefix, and a request
for an upgrade gets back what it sends then.
"""

import base64
import hashlib
import http.server
import json
import threading
import time


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        if self.headers.get("Upgrade") == "websocket":
            self._upgrade()
            return
        path = self.path.split("?")[0]
        started = time.monotonic()
        received = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = {
            "method": self.command,
            "path": self.path,
            "headers": dict(self.headers),
            "length": len(received),
            "seconds": time.monotonic() - started,
            "port": self.server.server_port,
            "connection": self.client_address[1],
        }
        body = json.dumps(answer).encode()
        self.send_response(int(path.rsplit("/", 1)[1]) if "/status/" in path else 302 if path.endswith("/login") else 200)
        if path.endswith("/login"):
            self.send_header("Location", "/welcome?to=/login")
            self.send_header("Set-Cookie", "session=1; Path=/; HttpOnly")
        if path.endswith("/own-headers"):
            self.send_header("X-Frame-Options", "DENY")
            self.send_header("Strict-Transport-Security", "max-age=1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _upgrade(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while data := self.connection.recv(4096):
            self.connection.sendall(data)
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = do_DELETE = _answer

    def log_message(self, *_arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    # An office opens a page at once.
    request_queue_size = 4096


threading.Thread(target=Server(("127.0.0.1", 8890), Echo).serve_forever, daemon=True).start()
Server(("127.0.0.1", 8888), Echo).serve_forever()
