"""Says what can follow from what: from wrong weights wrong logits, from a wrong mask other tokens, and so on.

Every complaint of a check has a kind, by its hint or else by its check. `FOLLOWS` has, for each kind, the kinds that it
explains; `ONLY_AFTER` narrows that for hints that name something of their own, such as a cache in another dtype, which
wrong weights do not explain and a wrong dtype does. A complaint that nothing before it explains is a cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal[
    "no model",
    "other model",
    "tensors",
    "mode",
    "process",
    "changed",
    "handed",
    "limit",
    "raised",
    "form",
    "tokens",
    "behaviour",
    "answers",
    "rows",
    "hollow",
    "saved",
    "again",
    "own",
    "expectation",
    "aborted",
]
"""What a complaint is about, the earlier cause first.

`other model`: not the checkpoint's class, sizes or settings. `tensors`: where they are, in which dtype, with which
values, tied, packed. `mode`: training. `process`: what the load left behind. `changed`: what generating did to the
model. `handed`: what the target hands to the model. `raised`: an exception. `form` and `tokens`: of what `generate`
returned. `behaviour`: of the model, driven by the checks. `answers`: of the target. `rows`: right answers at a wrong
place. `saved`, `again`: after a save, after another load. `limit`: of hardware or a library. `own`: of a test of one's
own, or of a check that nothing is known of. `expectation`: what passed unexpectedly."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

STRUCTURE: Final = ("loads", "meta", "placement", "dtypes", "values", "tied", "quantization")
"""The checks that look at the model without running it."""

OF_CHECK: Final[Mapping[str, Kind]] = {
    "loads": "other model",
    **dict.fromkeys(STRUCTURE[1:], "tensors"),
    "mode": "mode",
    "forward": "behaviour",
    "inputs": "handed",
    "generation": "tokens",
    "agreement": "behaviour",
    "padding": "behaviour",
    "prefix": "behaviour",
    "cache": "behaviour",
    "sampling": "behaviour",
    "save": "saved",
    "state": "process",
    "reload": "again",
    "cards": "own",
}
"""The kind of what a check of the suite finds, where its hint does not say more."""

OF_HINT: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("other-model", "resized", "other-head"), "other model"),
    **dict.fromkeys(("configuration-overridden", "layer-number"), "other model"),
    "training-mode": "mode",
    "model-changed-by-generating": "changed",
    "prompt-in-front": "form",
    **dict.fromkeys(
        ("not-deterministic", "not-repeated", "kept-between-calls", "other-choice", "other-in-a-batch"), "answers"
    ),
    "history-changes-new-tokens": "answers",
    "prompt-cut": "answers",
    "too-many-new-tokens": "form",
    "modules-renamed": "other model",
    **dict.fromkeys(
        ("row-shifted", "rows-in-another-order", "rows-lost-or-mixed", "batch-ends-with-one-row"), "rows"
    ),
    **dict.fromkeys(("out-of-memory", "device-lost", "no-such-device", "float64", "no-kernel"), "limit"),
    "moved-after-dispatch": "limit",
    "answers-kept-by-prompt": "rows",
}  # fmt: skip
"""The kind of what has one of these hints, whichever check found it."""

_RUN: Final[frozenset[Kind]] = frozenset({"behaviour", "answers", "tokens", "saved", "again", "raised"})
"""What comes of running a model."""

FOLLOWS: Final[Mapping[Kind, frozenset[Kind]]] = {
    "no model": frozenset(KINDS) - {"limit", "own", "expectation"},
    "other model": _RUN | {"other model", "tensors", "hollow", "form", "changed"},
    "tensors": _RUN | {"hollow", "changed"},
    "mode": _RUN | {"mode", "handed"},
    "process": _RUN | {"handed"},
    "changed": _RUN | {"changed"},
    "handed": frozenset({"handed", "answers", "tokens", "raised", "rows"}),
    "raised": frozenset({"raised", "hollow", "behaviour", "answers", "tokens", "saved", "again"}),
    "form": frozenset({"answers", "rows", "tokens", "hollow", "again", "behaviour"}),
    "tokens": frozenset({"answers", "rows", "tokens", "hollow", "again"}),
    "behaviour": _RUN,
    "answers": frozenset({"answers", "tokens"}),
    "rows": frozenset({"rows", "answers"}),
    "saved": frozenset({"saved"}),
    "limit": frozenset({"hollow", "raised", "aborted"}),
    "aborted": frozenset({"aborted"}),
}
"""By what is wrong: what that explains in the same cell."""

_TARGETS: Final = frozenset({"inputs", "generation", "reload", "cards"})
"""Checks in which the code of the target runs the model."""

_MODEL: Final = frozenset({"loads", "meta", "values"})
_PLACES: Final = frozenset({"loads", "meta", "placement", "quantization", "inputs", "state", "cards"})
_DTYPES: Final = frozenset({"loads", "dtypes", "quantization", "inputs", "state"})

ONLY_AFTER: Final[Mapping[str, frozenset[str]]] = {
    "two-devices": _PLACES,
    "cache-device": _PLACES,
    "two-dtypes": _DTYPES,
    "cache-dtype": _DTYPES,
    "upcast": _DTYPES,
    "saved-config-dtype": _DTYPES,
    "saved-dtype": _DTYPES,
    "meta-tensor": frozenset({"loads", "meta", "placement", "inputs"}),
    "masked-row": _MODEL | {"forward"},
    "changed-by-saving": _MODEL | {"forward", "state"},
    "saved-tie": frozenset({"loads", "tied", "placement"}),
    **dict.fromkeys(
        ("beams-not-reordered", "beams", "logits-processors", "end-ignored"),
        frozenset({*STRUCTURE, "forward", "state"}),
    ),
}  # fmt: skip
"""By hint: the checks whose findings explain it, where its kind alone does not say enough."""

EXACT: Final = frozenset({"mask-error", "depends-on-length", "noise-of-a-half"})
"""Hints that say more than others of their kind, and come first among them whichever check found them."""

OF_CAUSE: Final[Mapping[str, frozenset[Kind]]] = {
    "autocast": _RUN,
    "not-finite": _RUN,
    "environment-changed": frozenset({"again"}),
    "working-folder-changed": frozenset({"again"}),
    "garbage-collection-off": frozenset({"again"}),
    "checkpoint-changed": frozenset({"again", "saved"}),
    "current-card-changed": frozenset({"again", "raised"}),
}
"""By hint of the cause: what follows from it, where that is more or less than from others of its kind: autocast may be
in the model and not in the target, and some changes of the process enter no arithmetic."""

_REBUILT: Final = frozenset(
    {"", "other-model", "other-shape", "other-weights", "weights-never-filled", "random-initial-value", "tie-lost",
     "never-materialized", "buffer-never-computed", "buffer-of-another-configuration", "quantization-dropped"}
)  # fmt: skip
_CONFIGURED: Final = frozenset({"other-weights", "other-shape", "buffer-of-another-configuration"})

OF_TENSORS: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys(("other-model", "resized", "other-head"), _REBUILT),
    **dict.fromkeys(("configuration-overridden", "layer-number"), _CONFIGURED),
}
"""By the hint of another model: the hints of tensors that it explains. A dtype or a device is no question of those."""

ONE_TENSOR: Final = frozenset({"served-from-a-cache", "model-changed-by-generating"})
"""Hints that follow only where they are about a tensor that the cause is about too: it was wrong before."""

SEEN_BY: Final[Mapping[str, str]] = {"model-changed-by-generating": "state"}
"""By hint: the check that sees it. Others that have it only conclude it from what that one has seen."""

CASTS: Final = frozenset({"buffer-cast", "other-half", "dtype-dropped", "kept-module-cast"})
"""Hints of dtypes that explain rounded values, also of tensors that are in the right dtype again."""

ROUNDED: Final = frozenset({"weights-rounded", "buffer-rounded", "weights-changed"})

PAIRS: Final = frozenset(
    {("never-moved", "dtype-dropped"), ("random-initial-value", "other-weights"), ("other-weights", "weights-changed"),
     ("weights-changed", "other-weights")}
)  # fmt: skip
"""Hints of one mistake also on different tensors: a `.to(device, dtype)` that is missing, weights that were not read
and have initial values of two kinds, and a change that is small for some weights and large for others."""

WHOLE: Final = frozenset(
    {"never-moved", "wrong-index", "card-preferred", "spread-by-a-map", "dtype-dropped", "other-half",
     "prepared-for-training"}
)  # fmt: skip
"""Hints of the whole model: that they are about the same tensors as another one says nothing."""

ALIKE: Final[Mapping[str, str]] = {
    "buffer-cast": "weights-rounded",
    "buffer-rounded": "weights-rounded",
    "card-preferred": "wrong-index",
    "buffer-left-behind": "left-behind",
    "module-computes-otherwise": "other-logits",
}
"""Hints that are found in different cells and name one mistake: a cast of the whole model and back, a card that is
written in the code, a part that was not moved, a module whose error logits show in one dtype only."""


def kind_of(check: str, outcome: str, hint: str, raised: str) -> Kind:
    """The kind of a complaint.

    Args:
        check: the check that found it.
        outcome: of that check.
        hint: the name of its hint; empty where it has none.
        raised: the `kind` of its finding: `"exception"`, `"no model"`, `"answer"`, `"form"`, or empty.
    """
    if outcome == "aborted":
        return "aborted"
    if outcome == "xpass":
        return "expectation"
    if outcome == "error" or raised == "no model":
        return "no model"
    if outcome == "hollow":
        return "hollow" if check in OF_CHECK else "own"
    if raised == "exception":
        return "limit" if OF_HINT.get(hint) == "limit" else "raised"
    if raised == "form":
        return "form"
    return OF_HINT.get(hint) or ("answers" if raised == "answer" else OF_CHECK.get(check, "own"))


def runs_target(check: str) -> bool:
    """Whether the target's own code runs the model in `check`."""
    return check in _TARGETS
