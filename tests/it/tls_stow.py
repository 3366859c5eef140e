"""A STOW-RS target behind TLS for tests: tls_stow.py PORT CERTIFICATE KEY LOG.

Answers 200 to every POST and writes its path and length to LOG.
"""

import http.server
import ssl
import sys

port, certificate, key, log = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        with open(log, "a") as lines:
            lines.write(f"{self.path} {len(body)}\n")
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
