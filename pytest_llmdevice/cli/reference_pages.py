"""Makes the reference pages from the registry, the matrix schema and what the pytest plugin declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.cli.declarations import declared
from pytest_llmdevice.cli.markdown import attributes_of, code, codes, first_paragraph, table, wrapped, yes
from pytest_llmdevice.diagnosis import Finding, Hint
from pytest_llmdevice.hardware.library_support import FLASH_ATTENTION
from pytest_llmdevice.matrix.axes import DeviceKind, Quantization, Rule, Strategy
from pytest_llmdevice.matrix.axis_values import Document
from pytest_llmdevice.matrix.cards import LACKS
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.mixed_quantizations import MixedQuantization
from pytest_llmdevice.matrix.own_cards import OwnCard
from pytest_llmdevice.matrix.own_quantizations import OwnQuantization
from pytest_llmdevice.matrix.registry import Registry, built_in
from pytest_llmdevice.matrix.schema import Exclude, Expect, Include, Matrix, Require, Vary
from pytest_llmdevice.matrix.vocabulary import ATTENTIONS, DTYPES, SHORT_DTYPES
from pytest_llmdevice.simulation.profiles import MAX_COUNT, Profile
from pytest_llmdevice.zoo.families import Family
from pytest_llmdevice.zoo.traits import Trait

MATRIX_EXAMPLE: Final = """\
extends = "default"            # keys that are not given here come from there; tables add up
coverage = "pairwise"          # or "full"
models = ["llama", "path:checkpoints/mine"]
devices = ["cpu", "cuda:*"]
dtypes = ["float32", "bfloat16"]
quantization = ["none", "nf4"]
strategies = ["to", "device-map", "split"]

[[exclude]]                    # shell patterns; axes that are left out match everything
devices = ["cpu"]
quantization = ["nf4*"]
reason = "we serve quantized models on cards only"

[[include]]                    # in whatever the coverage; axes that are left out take the matrix' values
models = ["llama"]
devices = ["cuda:1"]

[[expect]]                     # what is known beforehand
models = ["path:*"]
checks = ["dtypes"]
versions = { transformers = ">=5" }
xfail = "what is wrong"        # strict: when the check passes again, the run fails and says so
source = "https://example.org/issue/1"

[[expect]]                     # what the loader leaves unquantized on purpose
quantization = ["nf4*"]
dense = ["*.mlp.down_proj"]

[require]                      # each value must be in a cell that passed on real hardware, or the run fails
devices = ["cuda:0"]
"""

_MADE: Final = "<!-- Made by `llmdevice reference` from the code. A test compares the two. -->"


def pages() -> dict[str, str]:
    """The name of each page and its text."""
    registry = built_in()
    made: Mapping[str, Callable[[Registry], Iterator[str]]] = {
        "checks.md": _checks,
        "options.md": _options,
        "matrix-file.md": _matrix_file,
        "axes.md": _axes,
        "hints.md": _hints,
        "entries.md": _entries,
    }
    return {name: "\n\n".join((_MADE, *map(wrapped, page(registry)))) + "\n" for name, page in made.items()}


def _checks(registry: Registry) -> Iterator[str]:
    yield "# Checks"
    yield (
        "The suite makes one test for each check on each cell, in this order. The test of the check `dtypes` is "
        "`test_dtypes`; `[[expect]]` in a matrix file, `pytest_llm_check` and the results name the check."
    )
    rows = [
        (f"`{check.name}`", check.question, check.meaning, ", ".join(check.needs), f"`{check.failure}`")
        for check in registry.of(Check).values()
    ]
    yield table(("check", "of every cell", "a finding means", "needs", "kind of failure"), rows)
    yield (
        "*Needs*: `generation` runs the target's `generate`, or the built-in one where it has none; `second load` "
        "loads the model again; `simulated cards` runs with `--llm-simulate` only. *Kind of failure* is the one of "
        "findings whose cause is not known; a [hint](hints.md) has a kind of its own. A check that looked at nothing "
        "is hollow, and fails."
    )


def _options(_: Registry) -> Iterator[str]:
    found = declared()
    yield "# Options"
    yield (
        "Without `--llm-matrix` the plugin does nothing but offer its fixtures. Ini keys stand in `[tool.pytest]` of "
        "`pyproject.toml`, or in any other file of pytest's; a flag wins over its key."
    )
    yield "## Flags"
    rows = [
        (
            f"`{flag.name}{f' {flag.metavar}' * bool(flag.metavar)}`",
            f"`{flag.dest}`" * (flag.dest in found.ini_keys),
            flag.help,
        )
        for flag in found.flags
    ]
    yield table(("flag", "ini key", "meaning"), rows)
    yield "## Ini keys"
    yield table(("key", "meaning"), [(f"`{key}`", text) for key, text in found.ini_keys.items()])
    yield "## Markers"
    yield table(("marker", "meaning"), [(f"`{key}`", text) for key, text in found.markers.items()])


def _matrix_file(registry: Registry) -> Iterator[str]:
    yield "# Matrix files"
    yield (
        "A matrix is a TOML file. `--llm-matrix-file` and the ini key `llm_matrix_file` take its path, or the name of "
        "a shipped one (`llmdevice matrix list`). `llmdevice matrix validate FILE` names everything that is wrong with "
        "a file, `llmdevice matrix show FILE` lists its cells."
    )
    yield f"```toml\n{MATRIX_EXAMPLE}```"
    yield "A single text stands for a list of one. A key that is not listed here is an error."
    yield "## Top level"
    yield _keys(Matrix)
    yield "Pairwise coverage: every pair of values that some allowed cell has, on each kind of device."
    for heading, kind, text in (
        ("`[[exclude]]`", Exclude, "At least one axis."),
        ("`[[include]]`", Include, "An axis that is left out takes the matrix' own values."),
        ("`[[vary]]`", Vary, "In matrices with pairwise coverage."),
        ("`[[expect]]`", Expect, "`tolerance`, `dense`, `xfail` or several."),
        ("`[[quantizations]]`", OwnQuantization, ""),
        ("`[[mixed]]`", MixedQuantization, "Names are those of the architecture."),
        ("`[[cards]]`", OwnCard, "`llmdevice` and pytest read it before `--llm-simulate`."),
        ("`[require]`", Require, "At least one axis. A simulated pass never satisfies it."),
    ):
        yield f"## {heading}"
        yield f"{first_paragraph(kind)} {text}"
        yield _keys(kind)
    yield "## Values"
    names = {
        "models": registry.names("family"),
        "devices": [_spelled(kind) for kind in registry.of(DeviceKind).values()],
        "dtypes": DTYPES,
        "quantization": registry.names("quantization"),
        "strategies": registry.names("strategy"),
        "attention": ATTENTIONS,
        "checks": registry.names("check"),
    }
    yield table(("key", "values"), [(f"`{key}`", codes(values)) for key, values in names.items()])
    yield (
        "[axes.md](axes.md) describes them. Values that a plugin [registers](../extending.md) are valid too. A ROCm "
        "card is `rocm:0` although PyTorch calls it `cuda:0`, so that a pass on one is never taken for a pass on the "
        "other."
    )


def _keys(kind: type[Document]) -> str:
    described = attributes_of(kind)
    required = {name for name, key in kind.model_fields.items() if key.is_required()}
    order = sorted(kind.model_fields, key=list(described).index)
    return table(
        ("key", "meaning"), [(f"`{name}`{' (required)' * (name in required)}", described[name]) for name in order]
    )


def _axes(registry: Registry) -> Iterator[str]:
    yield "# Axes"
    yield (
        "A cell has one value of each axis. Its id joins them: `llama.cuda0.bf16.nf4.auto`, with `.sim` when simulated."
    )
    yield "## Models"
    yield (
        "The zoo's families are built from configurations of transformers, seeded and without a download. Besides "
        "them: `path:DIR`, a local checkpoint, and `hub:ORG/NAME@REVISION`, one of the Hugging Face Hub; "
        "`hub-config:ORG/NAME@REVISION` is a tiny one of the same architecture, for which only `config.json` and the "
        "tokenizer are read. Every "
        "architecture for text of the installed transformers is a model too, by its model type, with hyphens "
        '(`gpt-oss`; `gpt_oss` is read as the same), `["all"]` for all of them. `llmdevice zoo` lists them.'
    )
    rows: list[Sequence[str]] = [
        (f"`{family.name}`", f"`{family.config_class}`", yes(family.tied), yes(family.moe), family.notes)
        for family in registry.of(Family).values()
    ]
    yield table(("family", "configuration", "tied", "experts", "exercises"), rows)
    yield "## Traits"
    yield (
        "A trait is a way in which real checkpoints differ from tidy ones. It is written behind a family or an "
        "architecture, and several can be: `llama~no-pad~right`. The name with its traits is the model of a cell: in "
        'its id, in results, and for patterns (`models = ["*~right"]` in `[[expect]]`).'
    )
    rows = [
        (code(entry.name), entry.description, entry.models, f"{entry.why} [source]({entry.source})")
        for entry in registry.of(Trait).values()
    ]
    yield table(("trait", "what is other", "for", "why"), rows)
    yield "## Devices"
    rows = [(code(_spelled(kind)), kind.title, code(kind.torch_type)) for kind in registry.of(DeviceKind).values()]
    yield table(("device", "what it is", "PyTorch's type"), rows)
    yield "## Dtypes"
    yield table(("dtype", "in an id"), [(code(dtype), code(SHORT_DTYPES[dtype])) for dtype in DTYPES])
    yield "## Quantizations"
    rows = [
        (code(entry.name), entry.description, entry.library or "none", code(entry.layer_class))
        for entry in registry.of(Quantization).values()
    ]
    yield table(("quantization", "what it does", "library", "layer class"), rows)
    yield "## Strategies"
    rows = [
        (code(entry.name), entry.description, str(entry.cards), entry.offload or "")
        for entry in registry.of(Strategy).values()
    ]
    yield table(("strategy", "what it does", "cards", "offloads to"), rows)
    yield "## Attention"
    yield f"{codes(ATTENTIONS)}: `attn_implementation` of transformers. `default` leaves the choice to the loader."
    yield "## Rules"
    yield (
        "What cannot run whatever the hardware is a rule of a family, a quantization, a strategy or an attention "
        "implementation. Such a cell is skipped as unsupported, with the reason."
    )
    yield table(("of", "rule", "source"), list(_rules(registry)))
    yield "## Simulation profiles"
    yield (
        f"For `--llm-simulate`, with a count of cards from 1 to {MAX_COUNT} and a size of memory where another is "
        "wanted: `cuda-t4:2,memory=8GiB`. Cards that differ in one machine are joined by their names without the kind: "
        "`cuda:h100+t4`, `cuda:2xt4+h100,memory=8GiB+8GiB+16GiB`. A MIG instance is named behind its card: "
        "`cuda:h100-1g.10gb`."
    )
    rows = [
        (
            code(profile.name),
            code(profile.kind),
            profile.card,
            f"{profile.memory / 2**30:.4g} GiB",
            profile.architecture or (".".join(map(str, profile.capability)) if any(profile.capability) else ""),
            ", ".join(LACKS[name] for name in profile.lacking),
            codes(part.name for part in profile.slices),
        )
        for profile in registry.of(Profile).values()
    ]
    yield table(("profile", "kind", "card", "memory", "capability", "what it lacks", "MIG instances"), rows)


def _rules(registry: Registry) -> Iterator[Sequence[str]]:
    owners: tuple[type[Family | Quantization | Strategy], ...] = (Family, Quantization, Strategy)
    rules: dict[Rule, list[str]] = {}
    for owner in owners:
        for entry in registry.of(owner).values():
            for rule in entry.rules:
                rules.setdefault(rule, []).append(entry.name)
    for rule, names in rules.items():
        yield codes(names), code(rule.name), rule.source
    yield code("flash_attention_2"), code(FLASH_ATTENTION.name), FLASH_ATTENTION.source


def _hints(registry: Registry) -> Iterator[str]:
    yield "# Hints"
    yield (
        "Known causes of findings. Reports name the hint and its source, and put findings of one cause together. Each "
        "has a condition, and is given only where that was seen. Those with a star are inferred from what the model "
        "says: they are not given where something is wrong with what the model is made of, and those with two stars "
        "not where any earlier check of the cell has found something. One with three stars is not given where an "
        "earlier check has met an exception."
    )
    rows = [
        (
            code(hint.name) + "\\*" * ("", "parts", "cell", "raised").index(hint.inferred),
            hint.text,
            hint.when,
            f"[source]({hint.source})" * bool(hint.source),
            code(hint.failure or ""),
        )
        for hint in registry.of(Hint).values()
    ]
    yield table(("hint", "usual cause", "given when", "source", "kind of failure"), rows)


def _entries(_: Registry) -> Iterator[str]:
    yield "# Entries"
    yield (
        "The classes that [`pytest_llm_register`](../extending.md) adds to the registry, and those that a check works "
        "with. All can be imported from `pytest_llmdevice`."
    )
    for entry in (
        Check,
        Strategy,
        Quantization,
        Family,
        Trait,
        DeviceKind,
        Profile,
        Hint,
        Rule,
        Result,
        Finding,
        Examination,
        Cell,
    ):
        yield f"## {entry.__name__}"
        yield first_paragraph(entry)
        described = attributes_of(entry)
        rows = [
            (code(field.name), code(str(field.type)), _default(field), described[field.name])
            for field in fields(entry)
            if field.init
        ]
        yield table(("field", "type", "default", "meaning"), rows)


def _default(field: Field[Any]) -> str:
    if callable(field.default):
        return "one that does nothing"
    if field.default is not MISSING:
        return code(repr(field.default))
    return "empty" if field.default_factory is not MISSING else ""


def _spelled(kind: DeviceKind) -> str:
    return f"{kind.name}:N" if kind.indexed else kind.name
