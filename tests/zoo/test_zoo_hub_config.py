"""Tiny checkpoints of the architecture of a repository, with the real client against a small hub on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_zoo_hub  # type: ignore[import-not-found]
import torch
from test_zoo_hub import Hub, hub  # noqa: F401 - a fixture
from transformers import AutoModelForCausalLM

from pytest_llmdevice.zoo.families import SEED
from pytest_llmdevice.zoo.fitted import why_unclear
from pytest_llmdevice.zoo.prompts import PROMPTS, continuations
from pytest_llmdevice.zoo.tokenizer import build_tokenizer

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 320,
    "bos_token_id": 257,
    "eos_token_id": [258, 300],
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def repositories(tokenizer: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def published(**changes: object) -> dict[str, bytes]:
        content = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
        return {"config.json": json.dumps(content).encode(), "model.safetensors": b"weights" * 100, **tokenizer}

    own = {"auto_map": {"AutoConfig": "configuration_own.OwnConfig"}, "model_type": "own"}
    for name, files in {
        "org/real": published(),
        "org/large": published(vocab_size=6000),
        "org/own": published(**own) | {"configuration_own.py": b"raise SystemExit"},
        "org/picture": published(model_type="vit"),
        "org/odd": published(model_type=None),
        "org/blt": published(model_type="blt"),
        "org/empty": {"README.md": b"# nothing"},
    }.items():
        monkeypatch.setitem(test_zoo_hub.REPOSITORIES, name, files)


def test_the_architecture_is_the_repositorys_and_the_sizes_are_tiny(hub: Hub, zoo_cache: Path) -> None:  # noqa: F811
    folder = Path(hub.checkpoint("hub-config:org/real", LLMDEVICE_CACHE=str(zoo_cache))["folder"])
    config = json.loads((folder / "config.json").read_text())
    assert config["hidden_size"] == 64
    assert config["num_hidden_layers"] == 2
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (4, 2)
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-5
    assert config["eos_token_id"] == [258, 300]
    rope = config["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", 32.0, 500000.0)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [258, 300]
    assert not any("safetensors" in request or ".py" in request for request in hub.requests)


@pytest.mark.parametrize("name", ["org/real", "org/large"])
def test_the_weights_are_trained_so_that_choices_are_clear(name: str, hub: Hub, zoo_cache: Path) -> None:  # noqa: F811
    folder = Path(hub.checkpoint(f"hub-config:{name}", LLMDEVICE_CACHE=str(zoo_cache))["folder"])
    assert why_unclear(folder) is None
    model = AutoModelForCausalLM.from_pretrained(folder)
    for prompt, answer in zip(PROMPTS, continuations(SEED), strict=True):
        with torch.no_grad():
            best = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].topk(2)
        assert best.indices[:, 0].tolist() == list(answer)
        assert (best.values[:, 0] - best.values[:, 1]).min() > 1


def test_traits_follow_the_name(hub: Hub, zoo_cache: Path) -> None:  # noqa: F811
    folder = Path(hub.checkpoint("hub-config:org/real@main~right", LLMDEVICE_CACHE=str(zoo_cache))["folder"])
    assert json.loads((folder / "tokenizer_config.json").read_text())["padding_side"] == "right"


def test_a_filled_cache_needs_no_hub(hub: Hub, zoo_cache: Path) -> None:  # noqa: F811
    first = hub.checkpoint("hub-config:org/real", LLMDEVICE_CACHE=str(zoo_cache))
    hub.requests.clear()
    assert hub.checkpoint("hub-config:org/real", LLMDEVICE_CACHE=str(zoo_cache), HF_HUB_OFFLINE="1") == first
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("org/own", "its model type 'own' is code of its own (auto_map), which is never run"),
        ("org/picture", "its model type 'vit' is no architecture for text"),
        ("org/odd", "its config.json names no model_type"),
        ("org/blt", "org/blt cannot be reduced: its forward pass"),
        ("org/empty", "org/empty at revision main has no config.json"),
        ("org/gated", "org/gated at revision main is gated"),
        ("org/nothing", "there is no such repository"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(name: str, says: str, hub: Hub) -> None:  # noqa: F811
    result = hub.checkpoint(f"hub-config:{name}")
    assert result["error"] in {"CheckpointUnavailable", "UnsupportedByLibrary"}
    assert says in result["message"]
    assert "\n" not in result["message"]


def test_offline_mode_names_its_variable(hub: Hub) -> None:  # noqa: F811
    result = hub.checkpoint("hub-config:org/real", HF_HUB_OFFLINE="1")
    assert result["error"] == "CheckpointUnavailable"
    assert "HF_HUB_OFFLINE is set" in result["message"]
