"""A server of model weights on this machine, which can misbehave in all the ways that servers do."""

from __future__ import annotations

import hashlib
import http.server
import threading

from napari_uniultra.model.download import Download


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, as well or as badly as the test asks for."""

    content = b""
    mode = "good"
    requests: list[str]
    released: threading.Event  # ends the waiting of "slow" and "silent"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append(asked)
        content, mode = self.server.content, self.server.mode
        if mode == "missing":
            self.send_error(404)
            return
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and mode != "no ranges" else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if mode == "silent":
            self.server.released.wait(10)
        elif mode == "slow":
            half = begin + (len(content) - begin) // 2
            self.wfile.write(content[begin:half])
            self.server.released.wait(10)
            self.wfile.write(content[half : half + 1000])
        elif mode == "cut":
            self.wfile.write(content[begin : len(content) // 2])
        else:
            self.wfile.write(content[begin:])

    def log_message(self, *_: object) -> None:
        pass


def source(server: Server, content: bytes) -> Download:
    """A download of this content from the server."""
    server.content = content
    return Download(server.url, len(content), hashlib.sha256(content).hexdigest())
