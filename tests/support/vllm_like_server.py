"""A server on loopback that behaves like vLLM's, as far as an engine needs, with a real model of its own.

It answers by the weights that it was last given; ``fault`` makes it wrong in one way::

    with VllmLike(model_folder) as server: ServerEngine(policy, EngineSettings(base_url=server.url))
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sdft_cli.config.recipe import Runtime, Sampler
from sdft_cli.engines.transformers import TransformersEngine
from sdft_cli.models import pretrained
from sdft_cli.models.policy import Policy

Body = dict[str, Any]
DEVELOPMENT = ("/reset_prefix_cache", "/collective_rpc", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")


class VllmLike:
    """``seen`` has (path, body) of every request in the order of arrival."""

    def __init__(self, model: Path, fault: str = ""):
        self.model, self.fault = model, fault
        self.loaded = {str(model): pretrained.load(str(model), Runtime())}
        self.seen: list[tuple[str, Body]] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> VllmLike:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def asked(self, path: str) -> list[Body]:
        return [body for seen, body in self.seen if seen == path]

    def answer(self, path: str, body: Body) -> tuple[int, Any]:
        """Status and JSON for a request; one at a time, as the models are not thread-safe."""
        with self.lock:
            self.seen.append((path, body))
            if self.fault == "500" and path == "/v1/completions":
                return 500, {"error": {"message": "out of\nmemory"}}
            if self.fault == "no-dev" and path in DEVELOPMENT:
                return 404, {"detail": "Not Found"}
            return 200, getattr(self, path.rpartition("/")[2])(body)

    def models(self, body: Body) -> Any:
        adapters = [{"id": name, "parent": str(self.model)} for name in self.loaded if name != str(self.model)]
        own = {"id": str(self.model), "parent": None, "max_model_len": 64}
        return {"data": [*adapters, own if self.fault != "other" else {"id": "x"}]}

    def reset_prefix_cache(self, body: Body) -> Any:
        return {"success": self.fault != "busy"}

    def collective_rpc(self, body: Body) -> Any:
        assert body["method"] == "reload_weights"
        if self.fault != "stale":
            read = AutoModelForCausalLM.from_pretrained(body["kwargs"]["weights_path"])
            self.loaded[str(self.model)].model.load_state_dict(read.state_dict())
        return {"results": [None]}

    def load_lora_adapter(self, body: Body) -> Any:
        self.loaded[body["lora_name"]] = pretrained.load(body["lora_path"], Runtime())

    def unload_lora_adapter(self, body: Body) -> Any:
        del self.loaded[body["lora_name"]]

    def completions(self, body: Body) -> Any:
        policy, ids = self.loaded[body["model"]], body["prompt"]
        temperature = body["temperature"]
        sampler = Sampler(temperature=temperature or 1.0, top_p=body.get("top_p", 1.0), top_k=body.get("top_k", 0))
        engine = TransformersEngine(policy)
        [rollout] = engine.sample([ids], sampler, body["max_tokens"], body.get("seed", 0), greedy=temperature == 0)
        logprobs = rollout.logprobs
        if self.fault == "raw":
            logprobs = self._logprobs(policy, ids + rollout.ids)[len(ids) - 1 :]
        choice: Body = {"token_ids": rollout.ids, "finish_reason": rollout.finish}
        choice["logprobs"] = {"token_logprobs": logprobs[1:] if self.fault == "short" else logprobs}
        if body.get("prompt_logprobs") is not None:
            values = self._logprobs(policy, ids)
            choice["prompt_logprobs"] = [
                None,
                *({str(t): {"logprob": x}} for t, x in zip(ids[1:], values, strict=True)),
            ]
        for name in ("token_ids", "logprobs", "prompt_logprobs"):
            if self.fault == f"no-{name}":
                choice.pop(name, None)
        return {"choices": [choice] * (2 if self.fault == "two" else 1)}

    @staticmethod
    @torch.no_grad()
    def _logprobs(policy: Policy, ids: list[int]) -> list[float]:
        logprob_LV = torch.log_softmax(policy.model(torch.tensor([ids])).logits[0, :-1].float(), -1)
        return logprob_LV.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


class _Handler(BaseHTTPRequestHandler):
    owner: VllmLike

    def do_GET(self) -> None:
        self._send(*self.owner.answer(self.path, {}))

    def do_POST(self) -> None:
        self._send(*self.owner.answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def _send(self, status: int, body: Any) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""
