"""The tensors of a checkpoint, in models that call them something else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pytest_llmdevice import Cell
from pytest_llmdevice.model.own import Own, describe
from pytest_llmdevice.oracle.plain_load import plain_skeleton
from pytest_llmdevice.oracle.recognition import names_of

FAMILIES = ("llama", "gpt2", "mixtral", "mamba", "t5", "deepseek-v3", "opt", "gemma3", "bloom", "qwen3-moe")

Renaming = Callable[[str], str]


class Part(nn.Module):
    """A module of one's own: what is in it, and nothing else."""


def loaded(family: str, dtype: torch.dtype = torch.float32) -> Any:
    kind: Any = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    return kind.from_pretrained(checkpoint(family), dtype=dtype)


def renamed(model: nn.Module, name_of: Renaming) -> tuple[nn.Module, dict[str, str]]:
    """A module with the parameters of `model` under other names, in the same order; and its names by theirs."""
    whole, names = Part(), {}
    for theirs, parameter in model.named_parameters(remove_duplicate=False):
        mine = name_of(theirs)
        *path, key = mine.split(".")
        owner: nn.Module = whole
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, Part())
            owner = owner.get_submodule(part)
        owner.register_parameter(key, parameter)
        names[mine] = theirs
    return whole, names


def scrambled(name: str) -> str:
    """Each word is another one; numbers stay."""
    return ".".join(part if part.isdigit() else f"x{part[::-1]}" for part in name.split("."))


def numbered_names(name: str) -> str:
    """`layers.0.mlp` is `layers_0.mlp`."""
    parts: list[str] = []
    for part in name.split("."):
        if part.isdigit() and parts:
            parts[-1] += f"_{part}"
        else:
            parts.append(part[::-1])
    return ".".join(parts)


def flat(name: str) -> str:
    return name.replace(".", "_").replace("weight", "w")


RENAMINGS: Mapping[str, Renaming] = {"scrambled": scrambled, "numbered": numbered_names, "flat": flat}


def found(model: nn.Module, family: str) -> dict[str, str | None]:
    bones = plain_skeleton(checkpoint(family), Cell(family, "cpu", "float32"))
    names = names_of(model, checkpoint(family), bones)
    return {named.name: named.architecture for named in names.tensors}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("renaming", RENAMINGS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_recognized_under_any_name(family: str, renaming: str, dtype: torch.dtype) -> None:
    model, names = renamed(loaded(family, dtype), RENAMINGS[renaming])
    assert found(model, family) == names


@pytest.mark.parametrize("family", ["llama", "gpt2", "deepseek-v3"])
def test_one_that_is_wrong_is_recognized_by_its_name_among_the_others(family: str) -> None:
    original = loaded(family)
    wrong = random.Random(family).choice([name for name, weight in original.named_parameters() if weight.ndim == 2])
    with torch.no_grad():
        original.get_parameter(wrong).normal_(generator=torch.Generator().manual_seed(0))
    model, names = renamed(original, scrambled)
    recognized = found(model, family)
    # The only one of its kind, such as the head, has no other to be told by.
    assert recognized == names or {mine for mine in names if recognized[mine] is None} == {
        mine for mine, theirs in names.items() if theirs == wrong
    }


def test_two_that_were_exchanged_keep_the_names_that_their_values_have() -> None:
    original = loaded("llama")
    query, other = (original.model.layers[layer].self_attn.q_proj.weight for layer in (0, 1))
    with torch.no_grad():
        kept = query.clone()
        query.copy_(other)
        other.copy_(kept)
    model, names = renamed(original, scrambled)
    recognized = found(model, "llama")
    assert len(set(recognized.values())) == len(names)


def test_what_the_target_says_counts_before_anything_else() -> None:
    original = loaded("llama")
    with torch.no_grad():
        for weight in original.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(weight.numel()))
    model, names = renamed(original, scrambled)
    patterns = {"xledom.xsreyal.*": "model.layers.*", "xledom": "model", "xdaeh_ml": "lm_head"}
    patterns |= {scrambled(part): part for part in ("self_attn.q_proj",)}
    own = Own(model, checkpoint("llama"), checkpoint("llama"), names={scrambled(n): n for n in names.values()})
    describe(model, own)
    assert found(model, "llama") == names
    assert {mine: parts[0].architecture for mine, parts in own.known.items()} == names


def test_another_model_is_not_recognized() -> None:
    original = loaded("llama")
    with torch.no_grad():
        for number, weight in enumerate(original.parameters()):
            weight.normal_(generator=torch.Generator().manual_seed(number))
    model, names = renamed(original, scrambled)
    assert sum(other is not None for other in found(model, "llama").values()) < len(names) // 2


def test_query_key_and_value_in_one_tensor_are_recognized_as_its_rows() -> None:
    original = loaded("llama")
    for layer in original.model.layers:
        attention = layer.self_attn
        parts = [projection.weight for projection in (attention.q_proj, attention.k_proj, attention.v_proj)]
        attention.qkv = nn.Linear(64, sum(map(len, parts)), bias=False)
        attention.qkv.weight = nn.Parameter(torch.cat(parts))
        del attention.q_proj, attention.k_proj, attention.v_proj
    model, _ = renamed(original, lambda name: f"x.{name}")
    bones = plain_skeleton(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    names = names_of(model, checkpoint("llama"), bones)
    plain = loaded("llama")
    there = {named.architecture: named for named in names.tensors}
    assert set(there) == {name for name, _ in plain.named_parameters()}
    key = there["model.layers.1.self_attn.k_proj.weight"]
    assert key.name == "x.model.layers.1.self_attn.qkv.weight"
    assert key.part is not None
    assert torch.equal(key.part.of(key.tensor), plain.model.layers[1].self_attn.k_proj.weight)


def test_weights_that_are_kept_transposed_are_recognized() -> None:
    original = loaded("gpt2")
    for block in original.transformer.h:
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            layer.weight = nn.Parameter(layer.weight.T.contiguous())
    model, names = renamed(original, scrambled)
    bones = plain_skeleton(checkpoint("gpt2"), Cell("gpt2", "cpu", "float32"))
    there = {named.name: named for named in names_of(model, checkpoint("gpt2"), bones).tensors}
    assert {mine: named.architecture for mine, named in there.items()} == names
    turned = {names[mine] for mine, named in there.items() if named.part is not None}
    assert turned == {
        f"transformer.h.{layer}.{part}.weight"
        for layer in (0, 1)
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
