"""One loaded cell under every check: what several checks need is made once, and an exception is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice import checks
from pytest_llmdevice.checks.many_prompts import ended_findings, many_prompts_findings
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding, finding_from_exception
from pytest_llmdevice.diagnosis.divergence import first_divergence
from pytest_llmdevice.diagnosis.errors import first_line, hint_of
from pytest_llmdevice.diagnosis.failure import NO_EXCEPTION, excerpt
from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.inference.generation_run import GenerationRun, generate_traced
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.inference.prompts import encode, load_tokenizer
from pytest_llmdevice.loading.load import Loaded, changes_of
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.loading.target import changes_by_import
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import CHECKS
from pytest_llmdevice.model.device_map import restore_offloading
from pytest_llmdevice.model.names import TensorNames
from pytest_llmdevice.oracle.expectations import Expectations, expectations_of
from pytest_llmdevice.oracle.reference import Reference, reference
from pytest_llmdevice.simulation.profiles import Profile, parse

if TYPE_CHECKING:
    from pytest_llmdevice.loading.target import Target

NEW_TOKENS: Final = 8

FEW_TOKENS: Final = 3
"""New tokens where the question is whether anything goes elsewhere, and not what it says."""

Tokens = Sequence[Sequence[int]]


@dataclass
class Examination:
    """A model that `target` loaded for `cell`, to be looked at by checks.

    Attributes:
        target: the code under test.
        checkpoint: the local folder that the model was loaded from.
        cell: what was asked for.
        model: what it returned.
        prompts: lists of token ids of unequal length.
        reference: what the same model says to them on the cpu in float32.
        tolerance: the largest relative error of the logits, None for the one by dtype and quantization.
        beside: cards to simulate while a cpu cell is loaded once more, None for none.
        others: cells of the same model on the same machine, to be loaded between this one and itself.
    """

    target: Target
    checkpoint: str
    cell: Cell
    model: Any
    prompts: Tokens
    reference: Reference
    tolerance: float | None = None
    beside: Profile | None = None
    others: tuple[Cell, ...] = ()

    @cached_property
    def expectations(self) -> Expectations:
        """Where every tensor of the model belongs, and in which dtype."""
        return expectations_of(self.model, self.checkpoint, self.cell)

    @cached_property
    def generated(self) -> GenerationRun:
        """What the target generates for the prompts."""
        return generate_traced(self.target, self.model, self.prompts, NEW_TOKENS)

    @property
    def logits_tolerance(self) -> float:
        """The largest relative error of the logits that is still numeric noise."""
        return checks.tolerance(self.cell) if self.tolerance is None else self.tolerance

    def checks(self) -> tuple[str, ...]:
        """The names of the checks that this cell can be put to, in their order."""
        return tuple(name for name in CHECKS if name != "cards" or (self.beside and self.cell.kind == "cpu"))

    def check(self, name: str) -> Result:
        """The result of the check `name`. What the model or the target raises in it is its finding.

        Raises:
            KeyError: there is no such check.
        """
        run = RUN[name]
        try:
            result = run(self)
        except of_target() as error:  # the model under test runs in it, and may raise anything
            restore_offloading(self.model)
            result = Result(name, (finding_from_exception(error, self.model, doing=name),), details=excerpt(error))
        # An exception says itself where it was raised.
        said = any(finding.expected != NO_EXCEPTION for finding in result.findings)
        return replace(result, origin=self.origin) if said and name in OF_VALUES else result

    @cached_property
    def origin(self) -> str:
        """The first module that says something else than in a plain load of the same cell on the cpu, in words."""
        # Not looked for where nothing has been generated yet.
        changes = vars(self)["generated"].changes if "generated" in vars(self) else ()
        changed = next((one for one in changes if one.kind == "model" and not one.after.endswith(" mode")), None)
        if changed is not None:
            return f"generate, which changed the model: {changed.name} was {changed.before}, and is {changed.after} now"
        longest = max(self.prompts, key=len)
        try:
            modules = TensorNames(self.model).modules
            plain = from_pretrained(
                self.checkpoint, Cell(self.cell.model, "cpu", self.cell.dtype, self.cell.quantization)
            )
            found = first_divergence(
                self.model,
                plain,
                lambda model: forward_logits(model, inputs_for(model, [longest])),
                checks.generation_tolerance(self.cell),
                lambda name: modules.get(name) or name,
            )
        except Exception as error:  # noqa: BLE001  # a search for the cause must not hide the finding it is for
            return f"not found, a comparison with a plain load was not possible: {first_line(error)}"
        return SAME if found is None else str(found)


def not_loaded(loaded: Loaded) -> Result:
    """What is wrong with a cell that has no model: one result, that of the check `loads`."""
    cause = loaded.cause.removeprefix("load returned ") or f"unsupported: {loaded.unsupported}"
    hint = hint_of(loaded.exception) if loaded.exception is not None else None
    return Result("loads", (Finding("load", "a model", cause, hint),), details=loaded.error.partition("\n")[2].strip())


OF_VALUES: Final = frozenset({"forward", "generation", "agreement", "padding", "prefix", "cache", "sampling"})
"""The checks of what the model says, whose findings may have begun in any of its modules."""

SAME: Final = (
    "no module of the model: for one prompt without padding each says the same as in a plain load; look at what the "
    "target hands to it, at padding and at caches"
)


def _agreement(exam: Examination) -> Result:
    own = checks.generation_tolerance(exam.cell)
    rows, alone = exam.generated.first, exam.generated.alone
    result = checks.check_agreement(exam.model, exam.reference, exam.prompts, rows, alone, exam.logits_tolerance, own)
    if result.findings or exam.generated.error is not None:
        # What is wrong with a few prompts is wrong with many.
        return result
    findings, evidence = many_prompts_findings(exam.target, exam.model, exam.prompts, alone, own)
    if not findings:
        findings, more = ended_findings(exam.target, exam.model, exam.prompts, rows)
        evidence = {**evidence, **more}
    return replace(result, findings=tuple(findings), evidence={**result.evidence, **evidence})


def _padding(exam: Examination) -> Result:
    own = checks.generation_tolerance(exam.cell)
    return checks.check_padding(exam.model, exam.cell, exam.prompts, exam.checkpoint, own)


def _reload(exam: Examination) -> Result:
    trace = exam.generated.trace
    ran = bool(trace.calls or trace.modules or trace.compiled)
    return checks.check_reload(exam.target, exam.model, exam.checkpoint, exam.cell, exam.others, exam.prompts, ran=ran)


def _cards(exam: Examination) -> Result:
    if exam.beside is None:
        return Result("cards")
    looked_at = ("placement", "dtypes", "inputs", "generation")
    known = [finding for name in looked_at for finding in exam.check(name).findings]
    return checks.check_cards(
        exam.target, exam.checkpoint, exam.cell, exam.beside, exam.prompts, FEW_TOKENS, exam.generated, known
    )


def _prefix(exam: Examination) -> Result:
    return checks.check_prefix(exam.model, exam.cell, exam.prompts, exam.checkpoint, exam.tolerance)


def _cache(exam: Examination) -> Result:
    # A generation that fails is the generation check's.
    target = exam.target if exam.generated.error is None else None
    return checks.check_cache(exam.model, exam.cell, exam.prompts, target, exam.checkpoint)


RUN: Final[Mapping[str, Callable[[Examination], Result]]] = {
    "loads": lambda exam: checks.check_loads(exam.model, exam.expectations, exam.checkpoint, exam.cell),
    "meta": lambda exam: checks.check_meta(exam.model),
    "placement": lambda exam: checks.check_placement(exam.model, exam.expectations, exam.cell),
    "dtypes": lambda exam: checks.check_dtypes(exam.model, exam.expectations, exam.cell, exam.checkpoint),
    "values": lambda exam: checks.check_values(exam.model, exam.checkpoint, exam.cell),
    "tied": lambda exam: checks.check_tied(exam.model, exam.expectations),
    "quantization": lambda exam: checks.check_quantization(exam.model, exam.expectations, exam.cell),
    "mode": lambda exam: checks.check_mode(exam.model),
    "forward": lambda exam: checks.check_forward(exam.model, exam.cell, exam.prompts, exam.checkpoint),
    "generation": lambda exam: checks.check_generation(exam.generated, exam.prompts, NEW_TOKENS, exam.model),
    "inputs": lambda exam: checks.check_inputs(exam.generated, exam.prompts, exam.model, exam.cell),
    "agreement": _agreement,
    "padding": _padding,
    "prefix": _prefix,
    "cache": _cache,
    "sampling": lambda exam: checks.check_sampling(exam.model, exam.prompts, exam.checkpoint),
    "save": lambda exam: checks.check_save(exam.model, exam.expectations, exam.cell, exam.prompts, exam.checkpoint),
    "state": lambda exam: checks.check_state(
        changes_of(exam.model), exam.generated.changes, changes_by_import(exam.target)
    ),
    "reload": _reload,
    "cards": _cards,
}


def examine(
    target: Target,
    checkpoint: str | Path,
    cell: Cell,
    prompts: Tokens | None = None,
    *,
    beside: str = "",
    others: Sequence[Cell] = (),
    folder: str | Path | None = None,
) -> Iterator[Result]:
    """Have `target` load `checkpoint` for `cell` and make every check, as the suite does, without pytest.

    A load that fails is one result, and the only one. For a cell that is simulated, be inside `simulate`.

    Args:
        target: the code under test.
        checkpoint: a local folder.
        cell: what to ask for.
        prompts: lists of token ids of unequal length; the suite's by default.
        beside: cards to simulate while a cpu cell is loaded once more, such as `"cuda:2"`; empty for none.
        others: cells of the same model, to be loaded between `cell` and `cell` once more.
        folder: where reference outputs are kept for the next time.

    Raises:
        ConfigurationError: `beside` is no profile.
    """
    profile = parse(beside) if beside else None
    # Before the load: a target may change the classes that both are made of.
    made = _expected(str(checkpoint), prompts, None if folder is None else Path(folder))
    loaded = Loaded.load(target, Path(checkpoint), cell)
    if loaded.model is None:
        yield not_loaded(loaded)
        return
    try:
        if isinstance(made, Exception):
            raise made
        exam = Examination(target, str(checkpoint), cell, loaded.model, *made, beside=profile, others=tuple(others))
        for name in exam.checks():
            yield exam.check(name)
    finally:
        loaded.release()


def _expected(checkpoint: str, prompts: Tokens | None, folder: Path | None) -> tuple[Tokens, Reference] | Exception:
    """The prompts and what the model says to them; or what was raised: of a broken checkpoint, the load says more."""
    try:
        given = encode(load_tokenizer(checkpoint)) if prompts is None else prompts
        return given, reference(checkpoint, given, NEW_TOKENS, folder)
    except Exception as error:  # noqa: BLE001  # raised where the load has nothing to say
        return error
