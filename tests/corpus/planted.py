"""Plain loaders and generators with one line too many: faults whose cause is known to the letter.

They hold hints, not checks: each says which hints are right for it, and no other may be given.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from checkpoints import checkpoint
from torch import nn

from corpus.case import _process_of_its_own, prompts
from pytest_llmdevice import Cell, Result, examine, simulate
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.loading.target import BuiltinTarget

Rows = Sequence[Sequence[int]]


PLAIN: Final = Cell("llama", "cpu", "float32")


@dataclass(frozen=True)
class Planted:
    """A fault.

    Attributes:
        name: what it is, in words joined by hyphens.
        right: the names of the hints that are right for it.
        change: what is done to a model that was loaded right; what it returns, if anything, is the model.
        way: the target's `generate`; None for the built-in one.
        cell: where it is looked for.
        machine: a profile to simulate; empty for none.
    """

    name: str
    right: str
    change: Callable[[Any], Any] | None = None
    way: Callable[[Any, Rows, int], Any] | None = None
    cell: Cell = PLAIN
    machine: str = ""

    def results(self) -> Iterator[Result]:
        """What did not pass, check by check."""
        target: Any = BuiltinTarget() if self.change is None else _Changes(self.change)
        if self.way is not None:
            target = _Changes(self.change or (lambda _: None))
            target.generate = self.way
        environment = dict(os.environ)
        try:
            with _process_of_its_own(), simulate(self.machine) if self.machine else nullcontext():
                folder = checkpoint(self.cell.model)
                for result in examine(target, folder, self.cell, prompts(self.cell.model)):
                    if not result.passed:
                        yield result
        finally:
            os.environ.clear()
            os.environ.update(environment)


class _Changes:
    def __init__(self, change: Callable[[Any], Any]) -> None:
        self._change = change

    def load(self, folder: str, cell: Cell) -> Any:
        model = BuiltinTarget().load(folder, cell)
        changed = self._change(model)
        return changed if isinstance(changed, nn.Module) else model


def _weight(name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        weight = model.get_parameter(name)
        weight.data = function(weight.data).contiguous()

    return change


def _hooked(module: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.get_submodule(module).register_forward_hook(lambda *call: function(call[-1]))

    return change


def _options(**options: Any) -> Callable[[Any, Rows, int], Any]:
    """The built-in generate with other options, one prompt after the other."""

    def way(model: Any, given: Rows, new: int) -> Any:
        rows = []
        for prompt in given:
            ids = torch.tensor([list(prompt)], device=model.device)
            asked = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new} | options
            rows.append(model.generate(ids, attention_mask=torch.ones_like(ids), **asked)[0, len(prompt) :].tolist())
        return rows

    return way


def _prompts(function: Callable[[Sequence[int]], Sequence[int]]) -> Callable[[Any, Rows, int], Any]:
    return lambda model, given, new: generate(model, [list(function(prompt)) for prompt in given], new)


def _rows(function: Callable[[list[list[int]]], Any]) -> Callable[[Any, Rows, int], Any]:
    return lambda model, given, new: function(generate(model, given, new))


def _padded(side: str, mask: bool) -> Callable[[Any, Rows, int], Any]:
    def way(model: Any, given: Rows, new: int) -> Any:
        width = max(map(len, given))
        pads = [[0] * (width - len(prompt)) for prompt in given]
        both = list(zip(pads, given, strict=True))
        rows = [[*pad, *prompt] if side == "left" else [*prompt, *pad] for pad, prompt in both]
        ones = [
            [0] * len(pad) + [1] * len(prompt) if side == "left" else [1] * len(prompt) + [0] * len(pad)
            for pad, prompt in both
        ]
        seen = torch.tensor(ones) if mask else torch.ones(len(rows), width, dtype=torch.long)
        output = model.generate(
            torch.tensor(rows), attention_mask=seen, do_sample=False, max_new_tokens=new, min_new_tokens=new
        )
        return output[:, width:].tolist()

    return way


def _under_autocast(model: Any, given: Rows, new: int) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return generate(model, given, new)


BF16: Final = Cell("llama", "cpu", "bfloat16")
TIED: Final = Cell("gpt2", "cpu", "float32")
CARD: Final = Cell("llama", "cuda:1", "bfloat16", simulated=True)
LAYER: Final = "model.layers.0.self_attn.q_proj"

PLANTED: Final = (
    # dtypes
    Planted("head-cast-up", "created-late upcast two-dtypes", lambda model: model.lm_head.float() and None, cell=BF16),
    Planted(
        "norm-cast-up", "created-late upcast two-dtypes", lambda model: model.model.norm.float() and None, cell=BF16
    ),
    Planted("all-cast-up", "dtype-dropped upcast", lambda model: model.float(), cell=BF16),
    Planted("all-halved", "other-half buffer-cast upcast", lambda model: model.half(), cell=BF16),
    Planted("one-layer-halved", "other-half two-dtypes", lambda model: model.model.layers[0].mlp.half() and None),
    Planted("configuration-of-float16", "config-dtype", lambda model: setattr(model.config, "dtype", torch.float16)),
    # values
    Planted("weight-scaled", "weights-changed", _weight(f"{LAYER}.weight", lambda weight: weight * 1.1)),
    Planted("weight-turned", "other-weights", _weight(f"{LAYER}.weight", lambda weight: weight.T)),
    Planted("rows-exchanged", "other-weights", _weight(f"{LAYER}.weight", lambda weight: weight.flip(0))),
    Planted("norm-plus-one", "weights-changed", _weight("model.norm.weight", lambda weight: weight + 1)),
    Planted(
        "head-drawn-anew", "random-initial-value", _weight("lm_head.weight", lambda old: torch.randn_like(old) * 0.02)
    ),
    Planted("weights-through-half", "weights-rounded", lambda model: model.half().float(), cell=TIED),
    Planted("setting-changed", "configuration-overridden", lambda model: setattr(model.config, "rms_norm_eps", 0.1)),
    Planted(
        "tie-cut",
        "tie-lost",
        lambda model: setattr(model.lm_head, "weight", nn.Parameter(model.lm_head.weight.clone())),
        cell=TIED,
    ),
    # what is computed
    Planted("logits-negated-by-a-hook", "other-logits", _hooked("lm_head", lambda logits: -logits)),
    Planted("attention-output-doubled", "other-logits", _hooked("model.layers.0.mlp", lambda hidden: 2 * hidden)),
    Planted("nan-by-a-hook", "not-finite", _hooked("lm_head", lambda logits: logits * float("nan"))),
    Planted("training-mode", "training-mode", lambda model: model.train()),
    # placement
    Planted("left-on-the-cpu", "never-moved", lambda model: model.to("cpu"), cell=CARD, machine="cuda:2"),
    Planted("card-without-index", "wrong-index", lambda model: model.to("cuda"), cell=CARD, machine="cuda:2"),
    Planted(
        "head-left-on-the-cpu",
        "left-behind two-devices",
        lambda model: model.lm_head.to("cpu") and None,
        cell=CARD,
        machine="cuda:2",
    ),
    Planted(
        "rotary-left-on-the-cpu",
        "buffer-left-behind two-devices",
        lambda model: model.model.rotary_emb.to("cpu") and None,
        cell=CARD,
        machine="cuda:2",
    ),
    # state
    Planted("default-dtype", "default-dtype-left", lambda _: torch.set_default_dtype(torch.float64)),
    Planted("environment", "environment-changed", lambda _: os.environ.update(CUDA_VISIBLE_DEVICES="0")),
    # generation
    Planted("sampling", "not-deterministic other-choice", way=_options(do_sample=True, temperature=5.0)),
    Planted("penalty", "other-choice", way=_options(repetition_penalty=9.0)),
    Planted("banned", "other-choice", way=_options(suppress_tokens=[101, 103, 107, 109, 112])),
    Planted(
        "tokens-changed", "other-choice", way=_rows(lambda rows: [[(token + 1) % 256 for token in row] for row in rows])
    ),
    Planted("prompt-cut", "prompt-cut", way=_prompts(lambda prompt: prompt[-4:])),
    Planted("start-token", "token-in-front-of-the-prompt", way=_prompts(lambda prompt: [257, *prompt])),
    Planted("template", "token-in-front-of-the-prompt", way=_prompts(lambda prompt: [257, 33, 34, *prompt])),
    Planted("padded-on-the-right", "right-padding wrong-positions other-in-a-batch", way=_padded("right", mask=True)),
    Planted("mask-of-ones", "wrong-mask other-in-a-batch", way=_padded("left", mask=False)),
    Planted("rows-turned-round", "rows-in-another-order", way=_rows(lambda rows: rows[::-1])),
    Planted("last-rows-lost", "rows-lost-or-mixed", way=_rows(lambda rows: rows[:8])),
    Planted("a-token-too-many", "too-many-new-tokens", way=lambda model, given, new: generate(model, given, new + 1)),
    Planted(
        "prompt-returned",
        "prompt-in-front",
        way=lambda model, given, new: [
            [*one, *row] for one, row in zip(given, generate(model, given, new), strict=True)
        ],
    ),
    Planted(
        "first-token-dropped",
        "row-shifted",
        way=lambda model, given, new: [row[1:] for row in generate(model, given, new + 1)],
    ),
    Planted("autocast", "autocast", way=_under_autocast),
    Planted("card-by-name", "no-such-device", way=lambda model, given, new: generate(model.cuda(), given, new)),
)
