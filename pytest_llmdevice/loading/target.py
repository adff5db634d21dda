"""Defines what a target must offer, provides the built-in one, and imports the one that `--llm-target` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_llmdevice.errors import ConfigurationError, message_of
from pytest_llmdevice.loading.members import MEMBERS, misfit
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.suggest import nearest
from pytest_llmdevice.monitoring.change import Change

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_llmdevice.matrix.cell import Cell

CONTRACT = (
    "a target is an object or a module with load(checkpoint: str, cell: pytest_llmdevice.Cell) -> a model, or an "
    "object that has one, and, optionally, generate(loaded, prompts: list[list[int]], max_new_tokens: int) -> list of "
    "new token ids; `pytest_llmdevice.FullTarget` has all that it may have"
)


@runtime_checkable
class Target(Protocol):
    """What is tested: an object or a module with `load`, and with any of the other functions of `FullTarget`."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        """Load the model in the local folder `checkpoint` as `cell` asks, ready for inference.

        Returns:
            The model, or any object that has it, such as a pipeline: see `FullTarget.model`.

        Raises:
            pytest_llmdevice.Unsupported: the code under test does not offer what the cell asks for.
        """


class FullTarget(Target, Protocol):
    """All that a target may have. Each function but `load` may be missing, and is used where it is there.

    `loaded` is always what `load` returned. To type-check a target that has only some of them, use `Target`.
    """

    def model(self, loaded: Any) -> nn.Module:
        """The module in what was loaded.

        Needed only where it cannot be told: else it is `loaded` itself, or the only module, or the one called `model`,
        among the attributes and items of `loaded`, two levels deep (`pipeline.model.model`).
        """

    def generate(self, loaded: Any, prompts: list[list[int]], max_new_tokens: int) -> Sequence[Sequence[int]]:
        """Greedy generation: for each prompt its new token ids, `max_new_tokens` of them unless it ends before.

        Without it, the built-in generation of transformers is used, or for a model of one's own a loop over `logits`.
        """

    def generate_text(self, loaded: Any, prompts: list[str], max_new_tokens: int) -> list[str]:
        """The same for code that takes and gives text: for each prompt its answer, without the prompt.

        It is used where there is no `generate`.
        """

    def prompt_ids(self, loaded: Any, prompts: list[str]) -> list[list[int]]:
        """The token ids that `generate_text` hands to the model for texts, where these are not the tokenizer's own.

        Chat interfaces put a template around what they are asked. What reaches the model is held against these ids.
        """

    def offers(self, cell: Cell) -> bool | str:
        """Whether the code under test does at all what `cell` asks: True, or False, or the reason why not.

        Cells that it does not offer are neither failures nor passes. That an offer is withdrawn fails the gate.
        """

    def names(self, loaded: Any) -> Mapping[str, str]:
        """Names of the model's tensors or modules -> names in the checkpoint; may be a mapping instead of a function.

        A `*` stands for any text without a dot, and is put in on the other side, in order:
        `{"blocks.*.q": "model.layers.*.self_attn.q_proj"}`. Needed only where values and structure do not tell.
        """

    def logits(self, loaded: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, length, vocabulary) for int64 `ids` and `mask` of shape (batch, length).

        For a model of one's own, whose `forward` takes or gives something else than transformers' models do. `mask` is
        0 at padding, which is on the left; a model that knows no padding raises `pytest_llmdevice.DoesNotApply` then.
        """

    def expected(self, checkpoint: str, cell: Cell) -> str | nn.Module:
        """Another reference than the plain load of `checkpoint`: the folder of a checkpoint, or a model.

        For code that changes what it loads on purpose: adapters, edited weights, a larger vocabulary.
        """


class BuiltinTarget:
    """Plain transformers and accelerate, in every strategy and quantization: the target when there is no other."""

    def load(self, checkpoint: str, cell: Cell) -> nn.Module:
        """Load `checkpoint` by the cell's strategy, in `eval` mode.

        Raises:
            UnsupportedByLibrary: the machine or an installed library cannot do what the cell asks.
        """
        model: nn.Module = current().of(Strategy)[cell.strategy].load(checkpoint, cell)
        return model

    def generate(self, model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy generation of a left-padded batch, beside the embedding; see `generation.generate`."""
        from pytest_llmdevice.inference.generation import generate

        return generate(model, prompts, max_new_tokens)


@dataclass(frozen=True)
class Resolved:
    """A target that was found by its name.

    Attributes:
        target: the code under test.
        changes: what the import of its module changed of the process; empty where it was imported before.
    """

    target: Target
    changes: tuple[Change, ...] = ()


def resolve(name: str) -> Resolved:
    """Import the target that `--llm-target` names, `module` or `module:attribute`; a class is instantiated.

    Raises:
        ConfigurationError: the module does not import, has no such attribute, or what it names has no
            callable `load`. The message says which, and what a target is.
    """
    from pytest_llmdevice.monitoring.process_state import unchanged_by_import

    module_name, _, attribute = name.partition(":")
    with unchanged_by_import() as changes:
        candidate: Any = _import(name, module_name)
    for part in attribute.split(".") if attribute else ():
        try:
            candidate = getattr(candidate, part)
        except AttributeError:
            names = [candidate for candidate in dir(candidate) if not candidate.startswith("_")]
            guess = nearest(part, names)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise ConfigurationError(f"target {name!r}: {module_name!r} has no attribute {part!r}{hint}") from None
    if isinstance(candidate, type):
        try:
            candidate = candidate()
        except Exception as error:  # noqa: BLE001  # the user's own code may raise anything
            raise ConfigurationError(
                f"target {name!r}: the class could not be instantiated without arguments: "
                f"{type(error).__name__}: {message_of(error)}"
            ) from None
    validate(candidate, name)
    return Resolved(candidate, tuple(changes))


def validate(candidate: object, name: str) -> None:
    """Make sure that `candidate` can be a target.

    Raises:
        ConfigurationError: it has no callable `load`, or its `generate` is not callable.
    """
    if not callable(getattr(candidate, "load", None)):
        guess = nearest("load", [entry for entry in dir(candidate) if not entry.startswith("_")])
        hint = f"; did you mean to call {guess!r} 'load'?" if guess else ""
        raise ConfigurationError(f"target {name!r} has no function 'load'{hint} ({CONTRACT})")
    if not callable(getattr(candidate, "generate", lambda: None)):
        raise ConfigurationError(f"target {name!r}: 'generate' is not a function ({CONTRACT})")
    for each in MEMBERS:
        if each != "load" and (wrong := misfit(candidate, each)):
            raise ConfigurationError(f"target {name!r}: {wrong}")


def _import(name: str, module_name: str) -> Any:
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigurationError(f"target {name!r} is not of the form 'package.module' or 'package.module:attribute'")
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[: error.name.count(".") + 1] == error.name.split("."):
            raise ConfigurationError(
                f"target {name!r}: no module named {error.name!r}; install it, or put its folder on the path "
                "(`pythonpath = .` in pytest's configuration, or run `python -m pytest`)"
            ) from None
        raise ConfigurationError(f"target {name!r}: its import failed: {message_of(error)}") from error
    except (Exception, SystemExit) as error:  # a script without a main guard exits when it is imported
        raise ConfigurationError(
            f"target {name!r}: its import failed: {type(error).__name__}: {message_of(error)}"
        ) from error
