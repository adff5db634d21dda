"""Models that are not the same after they were saved and loaded again."""

from __future__ import annotations

from typing import Any

import torch

from corpus.case import Case
from corpus.generate_tensors import Generating
from pytest_llmdevice import Cell


class SavesInHalf(Generating):
    """Overrides `save_pretrained` so that files are small, for every model."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        save = model.save_pretrained

        def save_pretrained(folder: Any, **options: Any) -> Any:
            state = options.pop("state_dict", None) or model.state_dict()
            return save(folder, state_dict={name: self.narrowed(value) for name, value in state.items()}, **options)

        model.save_pretrained = save_pretrained
        return model

    def narrowed(self, value: torch.Tensor) -> torch.Tensor:
        return value.half() if value.is_floating_point() else value


class SavesAsItIs(SavesInHalf):
    def narrowed(self, value: torch.Tensor) -> torch.Tensor:
        return value


class SavesWithPrefix(SavesAsItIs):
    """Saves the state of the compiled model, whose names have a prefix."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = Generating.load(self, checkpoint, cell)
        save = model.save_pretrained

        def save_pretrained(folder: Any, **options: Any) -> Any:
            compiled = torch.compile(model, backend="eager")
            return save(folder, state_dict=self.state(compiled), **options)

        model.save_pretrained = save_pretrained
        return model

    def state(self, compiled: Any) -> dict[str, torch.Tensor]:
        return dict(compiled.state_dict())


class SavesTheOriginal(SavesWithPrefix):
    def state(self, compiled: Any) -> dict[str, torch.Tensor]:
        return dict(compiled._orig_mod.state_dict())


class UntiedHead(Generating):
    """Gives the head a tensor of its own to train it apart, and does not say so in the configuration."""

    says_so = False

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        if not self.says_so:
            head = model.get_output_embeddings()
            head.weight = torch.nn.Parameter(head.weight.detach().clone() * 1.0, requires_grad=False)
        return model


class TiedHead(UntiedHead):
    says_so = True


def _case(name: str, source: str, story: str, buggy: Any, fixed: Any, *cells: Cell, machine: str = "") -> Case:
    source = f"https://github.com/{source}"
    return Case(name, "saving", source, story, buggy, fixed, cells, machine)


CASES = (
    _case(
        "saved-in-half",
        "facebookresearch/fairseq/issues/4736",
        "save_pretrained writes float16, whatever the model is in",
        SavesInHalf,
        SavesAsItIs,
        Cell("llama", "cpu", "float32"),
    ),
    _case(
        "saved-with-a-prefix",
        "mlfoundations/open_clip/pull/639",
        "the state of a compiled model is saved, with _orig_mod. before every name",
        SavesWithPrefix,
        SavesTheOriginal,
        Cell("qwen3", "cpu", "bfloat16"),
    ),
    _case(
        "head-untied-silently",
        "NVIDIA-NeMo/Automodel/pull/2511",
        "head and embedding are two tensors, the configuration ties them",
        UntiedHead,
        TiedHead,
        Cell("qwen2", "cpu", "float32"),
    ),
)
