"""Hub checkpoints, with the real client in a subprocess against a small hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import ConfigurationError

COMMIT = "0123456789abcdef0123456789abcdef01234567"

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "model.safetensors": b"weights" * 100,
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"raise SystemExit",
    "README.md": b"# A model",
    "original/consolidated.safetensors": b"the same weights again",
}

REPOSITORIES = {
    "org/model": MODEL,
    "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"a pickle"},
    "org/bare": {"config.json": b"{}", "model.safetensors": b"weights"},
    "org/gated": MODEL,
    "org/breaking": MODEL,
}

CLIENT = """
import json, sys
from pytest_llmdevice import zoo
try:
    print(json.dumps({"folder": str(zoo.checkpoint(sys.argv[1]))}))
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


@dataclass
class Hub:
    """The requests a client made, and how to run one."""

    home: Path
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)

    def checkpoint(self, model: str, **environment: str) -> dict[str, str]:
        """What `zoo.checkpoint(model)` returned or raised in a fresh process."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        finished = subprocess.run(
            [sys.executable, "-c", CLIENT, model],
            env=inherited | settings | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        result: dict[str, str] = json.loads(finished.stdout)
        return result


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path / "home")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(self.path)
            status, headers, body = respond(unquote(urlsplit(self.path).path).lstrip("/").split("/"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name http.server looks up

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def respond(parts: list[str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, as the Hub answers for model info, a tree listing or a file."""
    if parts[:2] == ["api", "models"]:
        repository, action, revision = "/".join(parts[2:4]), parts[4], parts[5]
    else:
        repository, action, revision = "/".join(parts[:2]), parts[2], parts[3]
    if repository == "org/private":
        return 401, {"X-Error-Message": "Invalid username or password."}, b""
    if repository not in REPOSITORIES:
        return 404, {"X-Error-Code": "RepoNotFound"}, b""
    if revision not in {"main", COMMIT}:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    files = REPOSITORIES[repository]
    if action == "revision":
        siblings = [{"rfilename": name} for name in files]
        return as_json({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings})
    if action == "tree":
        return as_json([{"type": "file", "path": n, "size": len(b), "oid": sha1(b)} for n, b in files.items()])
    if repository == "org/gated":
        return 401, {"X-Error-Code": "GatedRepo"}, b""
    if repository == "org/breaking":
        return 403, {"X-Error-Message": "Out of patience."}, b""
    body = files["/".join(parts[4:])]
    return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{sha1(body)}"'}, body


def as_json(content: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}, json.dumps(content).encode()


def sha1(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


def is_one_sentence_about(message: str, *parts: str) -> bool:
    return "\n" not in message and all(part in message for part in parts)


def test_configuration_tokenizer_and_safetensors_are_downloaded_and_nothing_else(hub: Hub) -> None:
    folder = Path(hub.checkpoint("hub:org/model")["folder"])
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert not any(name in request for request in hub.requests for name in ("pytorch_model", ".py", "consolidated"))


def test_the_second_call_makes_no_request(hub: Hub) -> None:
    first = hub.checkpoint("hub:org/model")
    hub.requests.clear()
    assert hub.checkpoint("hub:org/model") == first
    assert hub.requests == []


def test_main_is_the_revision_unless_one_is_named(hub: Hub) -> None:
    folder = hub.checkpoint("hub:org/model")["folder"]
    assert hub.checkpoint("hub:org/model@main")["folder"] == folder
    assert hub.checkpoint(f"hub:org/model@{COMMIT}")["folder"] == folder
    assert Path(folder).name == COMMIT


def test_an_unknown_revision_is_unavailable_even_with_another_one_cached(hub: Hub) -> None:
    hub.checkpoint("hub:org/model")
    result = hub.checkpoint("hub:org/model@v9")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/model at revision v9", "has no such revision")


def test_a_missing_repository_is_unavailable(hub: Hub) -> None:
    result = hub.checkpoint("hub:org/nothing")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/nothing at revision main", "no such repository")


def test_a_private_repository_is_unavailable(hub: Hub) -> None:
    result = hub.checkpoint("hub:org/private")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/private", "or it is private")


def test_a_gated_repository_says_how_to_get_in(hub: Hub) -> None:
    for _ in range(2):
        result = hub.checkpoint("hub:org/gated")
        assert result["error"] == "CheckpointUnavailable"
        assert is_one_sentence_about(result["message"], "org/gated at revision main is gated", "HF_TOKEN")


def test_another_refusal_is_reported_with_its_status(hub: Hub) -> None:
    result = hub.checkpoint("hub:org/breaking")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/breaking at revision main", "HTTP 403")


def test_a_repository_of_pickles_is_unavailable(hub: Hub) -> None:
    result = hub.checkpoint("hub:org/pickled")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/pickled", "has no model.safetensors")


def test_a_filled_cache_serves_without_the_hub(hub: Hub) -> None:
    first = hub.checkpoint("hub:org/model")
    hub.endpoint = "http://127.0.0.1:9"
    assert hub.checkpoint("hub:org/model") == first


def test_an_empty_cache_without_the_hub_is_unavailable(hub: Hub) -> None:
    hub.endpoint = "http://127.0.0.1:9"
    result = hub.checkpoint("hub:org/model")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/model at revision main", "could not be reached")


def test_offline_mode_makes_no_request_and_names_its_variable(hub: Hub) -> None:
    result = hub.checkpoint("hub:org/model", HF_HUB_OFFLINE="1")
    assert result["error"] == "CheckpointUnavailable"
    assert is_one_sentence_about(result["message"], "org/model at revision main", "HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_offline_mode_is_served_from_a_filled_cache(hub: Hub) -> None:
    first = hub.checkpoint("hub:org/model")
    assert hub.checkpoint("hub:org/model", HF_HUB_OFFLINE="1") == first


def test_an_interrupted_download_is_completed(hub: Hub) -> None:
    folder = Path(hub.checkpoint("hub:org/model")["folder"])
    (folder / "model.safetensors").unlink()
    assert hub.checkpoint("hub:org/model")["folder"] == str(folder)
    assert (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]


def test_an_interrupted_download_is_no_checkpoint_offline(hub: Hub) -> None:
    folder = Path(hub.checkpoint("hub:org/model")["folder"])
    (folder / "model.safetensors").unlink()
    assert hub.checkpoint("hub:org/model", HF_HUB_OFFLINE="1")["error"] == "CheckpointUnavailable"


def test_a_model_without_a_tokenizer_is_served_from_the_cache_too(hub: Hub) -> None:
    first = hub.checkpoint("hub:org/bare")
    hub.endpoint = "http://127.0.0.1:9"
    assert hub.checkpoint("hub:org/bare") == first
    assert hub.checkpoint("hub:org/bare", HF_HUB_OFFLINE="1") == first


@pytest.mark.parametrize("model", ["hub:", "hub:a/b/c", "hub:org/na me"])
def test_what_is_no_repository_name_is_refused(model: str) -> None:
    with pytest.raises(ConfigurationError, match="is no model: expected hub:org/name@revision"):
        zoo.checkpoint(model)
