"""Expectations come from a process in which nobody has touched the libraries, whatever is patched in this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answered_probe import PLUGIN, write_plugin
from transformers.models.llama import modeling_llama

from pytest_llmdevice import examine
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.monitoring.forks import fork
from pytest_llmdevice.oracle.plain_load import plain_model, plain_skeleton
from pytest_llmdevice.oracle.process import VARIABLE, OracleError, OracleProcess, ask
from pytest_llmdevice.oracle.reference import reference

CELL = Cell("llama", "cpu", "float32")

Patch = Callable[[pytest.MonkeyPatch], None]


def an_attention_without_scale(patch: pytest.MonkeyPatch) -> None:
    forward = modeling_llama.LlamaAttention.forward

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.scaling = 1.0
        return forward(self, *args, **kwargs)

    patch.setattr(modeling_llama.LlamaAttention, "forward", patched)


def a_norm_with_another_epsilon(patch: pytest.MonkeyPatch) -> None:
    build = modeling_llama.LlamaRMSNorm.__init__

    def patched(self: Any, size: int, eps: float = 1e-6) -> None:
        build(self, size, 0.5)

    patch.setattr(modeling_llama.LlamaRMSNorm, "__init__", patched)


def a_rotation_that_is_half(patch: pytest.MonkeyPatch) -> None:
    rotate = modeling_llama.apply_rotary_pos_emb

    def patched(q: Any, k: Any, cos: Any, sin: Any, **kwargs: Any) -> Any:
        return rotate(q, k, cos, sin / 2, **kwargs)

    patch.setattr(modeling_llama, "apply_rotary_pos_emb", patched)


def a_decoder_layer_that_is_left_out(patch: pytest.MonkeyPatch) -> None:
    def patched(_: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states

    patch.setattr(modeling_llama.LlamaDecoderLayer, "forward", patched)


def a_layer_without_its_activation(patch: pytest.MonkeyPatch) -> None:
    build: Any = modeling_llama.LlamaMLP.__init__

    def patched(self: Any, config: Any) -> None:
        build(self, config)
        self.act_fn = torch.nn.Identity()

    patch.setattr(modeling_llama.LlamaMLP, "__init__", patched)


def an_activation_of_torch(patch: pytest.MonkeyPatch) -> None:
    def patched(tensor: torch.Tensor, **_: Any) -> torch.Tensor:
        return tensor

    patch.setattr(torch.nn.functional, "silu", patched)


@pytest.mark.parametrize(
    "change",
    [
        an_attention_without_scale,
        a_norm_with_another_epsilon,
        a_rotation_that_is_half,
        a_decoder_layer_that_is_left_out,
        a_layer_without_its_activation,
        an_activation_of_torch,
    ],
)
def test_what_is_patched_here_is_found_though_a_plain_load_is_patched_too(
    checkpoint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, change: Patch
) -> None:
    change(monkeypatch)
    results = list(examine(BuiltinTarget(), checkpoint("llama"), CELL))
    assert any(result.findings for result in results), "the patched loader passed every check"


def test_nothing_is_found_where_nothing_is_patched(checkpoint: Callable[[str], str]) -> None:
    assert all(result.passed for result in examine(BuiltinTarget(), checkpoint("llama"), CELL))


LOADER = """
from transformers.models.llama import modeling_llama

modeling_llama.LlamaAttention.forward = (
    lambda self, hidden_states, *args, **kwargs: (hidden_states, None)
)


def load(checkpoint, cell):
    from pytest_llmdevice import BuiltinTarget
    return BuiltinTarget().load(checkpoint, cell)
"""


def test_a_loader_that_patches_at_import_neither_passes_nor_spoils_the_cache(
    checkpoint: Callable[[str], str], inventory: Inventory, tmp_path: Path
) -> None:
    (tmp_path / "patching.py").write_text(LOADER)
    write_plugin(tmp_path, inventory)
    # The checkpoint as it is, and no references yet.
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "zoo").symlink_to(Path(checkpoint("llama")).parent)
    references = tmp_path / "cache" / "references"
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"LLMDEVICE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    arguments = [sys.executable, "-m", "pytest", "-q", "--llm-matrix", "-p", "no:cacheprovider", "-p", PLUGIN]
    arguments += ["--llm-cell", "model=llama,device=cpu,dtype=float32,strategy=to,quantization=none"]
    arguments += ["-k", "agreement", f"--rootdir={tmp_path}"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # our own command
            [*arguments, *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    def is_found() -> None:
        spoilt = run("--llm-target", "patching")
        assert spoilt.returncode == 1, spoilt.stdout
        assert "agreement" in spoilt.stdout

    def stored() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in references.glob("*.safetensors")}

    is_found()
    first = stored()
    assert first
    # Before the plugin can do anything: then it takes a new process.
    early = tmp_path / "conftest.py"
    early.write_text("import patching\n")
    shutil.rmtree(references)
    is_found()
    assert stored() == first
    early.unlink()
    good = run()
    assert good.returncode == 0, good.stdout


def test_what_is_raised_there_is_raised_here(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    with pytest.raises(Exception) as there:  # noqa: PT011  # whichever transformers has for it
        reference(str(tmp_path), [[1, 2]], 2)
    assert not isinstance(there.value, OracleError)


def test_a_process_that_has_gone_is_said_to_have(monkeypatch: pytest.MonkeyPatch) -> None:
    process = OracleProcess(fork=False)
    monkeypatch.setenv(VARIABLE, str(process.wait()))
    assert ask(os.getppid) == os.getpid()
    process.close()
    with pytest.raises(OracleError, match="has gone"):
        ask(os.getppid)


def test_whoever_is_killed_while_asking_leaves_it_to_others(checkpoint: Callable[[str], str]) -> None:
    pid = fork()
    if pid == 0:
        ask(_slow)
        os._exit(0)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert plain_skeleton(checkpoint("llama"), CELL).__class__.__name__ == "LlamaForCausalLM"


def _slow() -> None:

    time.sleep(0.2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba", "t5", "mixtral"])
def test_models_keep_their_ties_on_the_way(checkpoint: Callable[[str], str], family: str) -> None:
    from pytest_llmdevice.loading.pretrained import from_pretrained

    here, there = from_pretrained(checkpoint(family), Cell(family, "cpu", "float32")), plain_model(checkpoint(family))
    assert [name for name, _ in here.named_parameters()] == [name for name, _ in there.named_parameters()]
    assert all(
        torch.equal(mine, other)
        for mine, other in zip(here.state_dict().values(), there.state_dict().values(), strict=True)
    )


def test_a_process_whose_parent_was_killed_ends_and_leaves_nothing() -> None:
    script = (
        "import os; from pytest_llmdevice.oracle import process; process.start(); print(process._own[0].wait().path)"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, sys.path))
    killed = subprocess.run(  # our own command
        [sys.executable, "-c", f"{script}; import sys; sys.stdout.flush(); os.kill(os.getpid(), 9)"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    folder = Path(killed.stdout.strip()).parent
    assert folder.name.startswith("llmdevice-"), killed.stderr
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not folder.exists()
