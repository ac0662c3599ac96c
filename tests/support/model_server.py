"""A small HTTP server that speaks OpenAI's API, and fails as it is told."""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ModelServer:
    """What it is to do, and what it saw.

    Attributes:
        url: Its address, as `LIVEJOBS_LLM_BASE_URL` has it.
        asked: How often each prompt was asked.
        requests: The bodies of the requests.
        keys: The credentials that came.
        left: Set when a client left in the middle of an answer.
        silent: Set when a stream says nothing any more.
        most: How many were asked at the same time at most.
    """

    def __init__(self) -> None:
        self.plans: dict[str, deque[tuple[Any, ...]]] = {}
        self.asked: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.left = threading.Event()
        self.silent = threading.Event()
        self.most = 0
        self.now = 0
        self.lock = threading.Lock()
        owner = self

        class Handler(_Handler):
            model = owner

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def forget(self) -> None:
        """Forget what was seen and planned."""
        self.plans.clear()
        self.asked.clear()
        self.requests.clear()
        self.left.clear()
        self.silent.clear()
        self.most = 0

    def plan(self, prompt: str, *answers: tuple[Any, ...]) -> None:
        """What a prompt is answered, one after the other, before it gets its proper answer.

        Args:
            *answers: ``(429, {"Retry-After": "1"})``, a status and headers; ``("cut",)``, a stream
                that breaks off; ``("short",)``, one that ends without a reason; ``("silent",)``,
                one that says nothing any more.
        """
        self.plans[prompt] = deque(answers)


class _Handler(BaseHTTPRequestHandler):
    model: ModelServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Answer a chat completion."""
        model = self.model
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with model.lock:
            model.requests.append(body)
            model.asked[prompt] += 1
            model.keys.add(self.headers.get("Authorization"))
            plan = model.plans.get(prompt)
            answer = plan.popleft() if plan else ("whole",)
            model.now += 1
            model.most = max(model.most, model.now)
        try:
            if isinstance(answer[0], int):
                self._refuse(*answer)
            else:
                self._stream(answer[0], prompt)
        finally:
            with model.lock:
                model.now -= 1

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        text = json.dumps({"error": {"message": f"planned {status}", "code": status}}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, kind: str, prompt: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        if kind == "cut":
            self.send_header("Content-Length", "99999")
        self.end_headers()
        self.close_connection = True
        for word in ("You ", "said ", prompt):
            self._send(choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        if kind in ("cut", "short"):
            if kind == "short":
                self.wfile.write(b"data: [DONE]\n\n")
            return
        if kind == "silent":
            self.model.silent.set()
            # A client that leaves is seen by the end of what it sends.
            self.connection.settimeout(60)
            if self.connection.recv(1) == b"":
                self.model.left.set()
            return
        self._send(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        self._send(choices=[], usage=usage)
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, **more: Any) -> None:
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", **more}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Run one on a free port."""
    model = ModelServer()
    thread = threading.Thread(target=model.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield model
    finally:
        model.server.shutdown()
        model.server.server_close()
        thread.join(timeout=5)
