# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a picture of the page with a browser: browse.py FILE WIDTH,HEIGHT, with the login in BROWSE_LOGIN.

The browser asks this program, which asks the page with the login: so neither the page's address nor the browser's arguments hold it.
"""

import base64
import http.client
import http.server
import os
import ssl
import subprocess
import sys
import threading

NAME = "monitoring.records.test"
TLS = ssl.create_default_context(cafile="/etc/civitas/ca.pem")
LOGIN = "Basic " + base64.b64encode(os.environ.pop("BROWSE_LOGIN").encode()).decode()


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = http.client.HTTPSConnection(NAME, 443, timeout=30, context=TLS)
        asked.request("GET", self.path, headers={"Authorization": LOGIN})
        answer = asked.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Type", "Content-Security-Policy"):
            if answer.headers[name]:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments):
        """Nobody reads it."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=20000"]
size, picture = f"--window-size={sys.argv[2]}", f"--screenshot={sys.argv[1]}"
subprocess.run(
    ["/usr/bin/chromium-headless-shell", *options, size, picture, f"http://127.0.0.1:{server.server_port}/"], check=True, timeout=180
)
