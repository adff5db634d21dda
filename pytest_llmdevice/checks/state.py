"""Checks that the load and the generation left the process as it was, and the generation the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding, Hint
from pytest_llmdevice.diagnosis.hints import state
from pytest_llmdevice.diagnosis.replaced import replaced_on_classes
from pytest_llmdevice.matrix.vocabulary import RandomState
from pytest_llmdevice.monitoring.change import Change

HARMLESS: Final[Mapping[str, str]] = {
    "TOKENIZERS_PARALLELISM": "tokenizers' threads; loaders set it to silence the warning after a fork",
    "HF_": "settings of the Hugging Face libraries: caches, offline mode, progress bars",
    "HUGGINGFACE_": "likewise",
    "TRANSFORMERS_": "likewise",
    "DIFFUSERS_": "likewise",
    "SAFETENSORS_": "likewise",
    "ACCELERATE_": "accelerate keeps its own settings there",
    "BITSANDBYTES_": "bitsandbytes' settings: which library it loads",
    "BNB_": "likewise",
    "TORCHINDUCTOR_": "torch sets its cache folder when it is first needed",
    "TORCH_COMPILE_": "settings of torch.compile",
    "TORCHDYNAMO_": "likewise",
    "TORCH_LOGS": "torch's messages",
    "TRITON_": "Triton's caches",
    "PYTORCH_ALLOC_CONF": "how the allocator cuts memory, not where tensors go",
    "PYTORCH_CUDA_ALLOC_CONF": "likewise",
    "PYTORCH_HIP_ALLOC_CONF": "likewise",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "how torch looks for cards, which a loader may ask to do without a context",
    "CUDA_MODULE_LOADING": "torch sets it when it starts CUDA",
    "CUDA_CACHE_": "where compiled kernels are kept",
    "OMP_": "the number of threads",
    "MKL_": "likewise",
    "KMP_": "likewise",
    "OPENBLAS_": "likewise",
    "NUMEXPR_": "likewise",
    "TF_CPP_": "TensorFlow's messages",
    "PYTHONWARNINGS": "which warnings are shown",
    "PYTEST_": "pytest's own",
    "COVERAGE_": "coverage's own",
    "WANDB_": "logging of training runs",
}
"""What the names of environment variables begin with that a load may set: no later load or generation is on another
device, in another dtype or says something else for it."""

WHAT_IS_WATCHED: Final = 20
"""Environment, default dtype, default device and modes, autocast, precision, cards, functions, folder, collector,
gradients, threads, determinism, kernels, processes, signals, streams, logging, locale, limits, hooks."""

_HINTS: Final[Mapping[str, Hint]] = {
    "environment": state.ENVIRONMENT,
    "dtype": state.DEFAULT_DTYPE,
    "device": state.DEFAULT_DEVICE,
    "card": state.CURRENT_CARD,
    "function": state.PATCHED,
    "mode": state.MODE,
    "autocast": state.AUTOCAST,
    "folder": state.FOLDER,
    "checkpoint": state.CHECKPOINT,
    "collector": state.COLLECTOR,
    "model": state.MODEL,
    "training": state.MODEL,
    "precision": state.PRECISION,
    "gradients": state.GRADIENTS,
    "threads": state.THREADS,
    "hook": state.HOOK,
    "hooks": state.HOOKS,
    "method": state.METHOD,
    "graph": state.GRAPH,
}


def check_state(
    load: Sequence[Change] | None,
    generation: Sequence[Change] | None,
    imported: Sequence[Change] = (),
    *,
    random_state: RandomState | None = None,
    replaced: Sequence[tuple[str, str]] = (),
) -> Result:
    """Nothing of the process is otherwise after the load and after the generation; what was is put back already.

    Nor did the generation cast, move or switch the model.

    Not held against them: environment variables that only choose caches, threads and messages (see `HARMLESS`), and
    random numbers, which a load may draw, and seed for that; evidence says so. A load that seeds torch and draws
    nothing does so for whatever comes after it. `random_state` says otherwise of both.

    Args:
        load: what the load changed; None where nobody recorded it, the model having been handed over.
        generation: likewise for the target's `generate`.
        imported: what the import of the target's module changed.
        random_state: `"kept"` if whatever draws or seeds random numbers is a finding, `"free"` if nothing that does.
        replaced: methods of classes of the libraries that are not theirs, and whose they are.
    """
    known = {change.name for change in load or () if change.kind == "method"}
    findings = [
        Finding(method, "the library's own", by, state.METHOD) for method, by in replaced if method not in known
    ]
    watched, harmless = 0, 0
    drawn: dict[str, str] = {}
    doings = (("load", load), ("generate", generation), ("the import of its module", imported or None))
    for doing, changes in doings:
        if changes is None:
            continue
        watched += WHAT_IS_WATCHED
        for change in changes:
            if change.kind in {"random", "seed"}:
                drawn[f"random numbers of {change.name}"] = f"{change.after} by {doing}"
                # A load that draws may seed what it draws from. With a seed and nothing else it means the others.
                seeds_the_process = change.kind == "seed" and doing == "load" and random_state != "free"
                if random_state == "kept" or seeds_the_process:
                    what = f"random numbers of {change.name}"
                    found = f"{change.after}, when {doing} came back"
                    findings.append(Finding(what, change.before, found, state.RANDOM))
                continue
            if is_harmless(change):
                harmless += 1
                continue
            what = f"environment variable {change.name}" if change.kind == "environment" else change.name
            found = f"{change.after}, when {doing} came back"
            findings.append(Finding(what, change.before, found, _HINTS.get(change.kind, state.GLOBAL)))
    evidence: dict[str, int | float | str] = {"kinds of state compared": watched}
    evidence |= drawn
    if harmless:
        evidence["harmless environment variables"] = harmless
    return Result("state", tuple(findings), evidence)


def is_harmless(change: Change) -> bool:
    """Whether `change` is of an environment variable that no later load depends on."""
    return change.kind == "environment" and change.name.startswith(tuple(HARMLESS))


STATE_CHECK: Final = Check(
    "state",
    lambda exam: check_state(
        exam.loaded.changes,
        exam.generated.changes,
        exam.imported,
        random_state=exam.random_state,
        replaced=replaced_on_classes(exam.model),
    ),
    (
        "the load, the generation and the import of the target left environment, default dtype and "
        "device, precision, current card, gradients, threads, signals, streams, logging, patched functions and "
        "the files of the checkpoint as they were, and the generation the model"
    ),
    ("Something outside of the model was left changed: whatever runs later in the process is affected."),
    needs=("generation",),
    failure="loader",
    behaviour=True,
    after="save",
)
