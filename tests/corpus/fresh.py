"""Which cases were fresh in a round, and what the checks said of them before anybody had worked on a check for them.

The hidden half of a round is every second name in the order of the alphabet: nobody who works on the checks sees it
until it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Half = Literal["open", "hidden"]


@dataclass(frozen=True)
class Round:
    """Bugs that came from reports in no list that the checks were made with.

    Attributes:
        date: when they were measured.
        versions: what was installed.
        caught: name of a case -> the check that caught it first, or nothing where all passed.
        alarms: names of the cases whose twin failed.
    """

    date: str
    versions: str
    caught: Mapping[str, str]
    alarms: tuple[str, ...] = field(default=())

    def half(self, which: Half) -> tuple[str, ...]:
        """The names of a half."""
        return tuple(sorted(self.caught))[which == "hidden" :: 2]


ROUNDS: Final = (
    Round(
        date="2026-11-27",
        versions="torch 2.13.0 (CPU), transformers 5.23.0, bitsandbytes 0.50.2, peft 0.21.2",
        caught={
            "adapter-merged-unscaled": "values",
            "biases-not-saved": "values",
            "chosen-experts-not-normalized": "agreement",
            "chosen-experts-sum-to-one": "agreement",
            "chunks-counted-twice": "agreement",
            "class-left-patched": "",
            "deterministic-left-on": "state",
            "drafts-kept-in-the-state": "agreement",
            "filters-of-warnings-replaced": "",
            "gradients-left-off": "state",
            "groups-left-interleaved": "values",
            "head-norms-not-saved": "values",
            "hooks-pile-up": "",
            "kept-by-a-cached-method": "reload",
            "logits-not-scaled": "loads",
            "long-answers-by-default": "",
            "no-repeats-by-default": "",
            "other-gelu": "prefix",
            "padding-of-a-single-row": "inputs",
            "prefix-handed-out": "generation",
            "residuals-one-after-the-other": "agreement",
            "root-logger-configured": "state",
            "routed-experts-not-scaled": "loads",
            "scale-of-the-first-channel": "values",
            "scales-never-read": "values",
            "scales-rounded-afterwards": "values",
            "scores-not-capped": "agreement",
            "scores-not-scaled": "loads",
            "seed-of-the-process": "",
            "unsafe-files-allowed": "state",
            "vocabulary-one-step-too-large": "",
            "whole-head-rotated": "loads",
            "window-one-too-wide": "agreement",
            "yarn-without-its-factor": "loads",
            "zero-point-of-another-version": "",
        },
    ),
)


_TOLD: Final = """\
Bugs from reports in no list that the checks were made with, and their twins, under the checks as they were. The hidden
half was kept from whoever works on the checks until it was measured.
"""


def section() -> list[str]:
    """The lines of the page that tell of the rounds."""
    lines = [
        "## Fresh bugs at their first measurement\n",
        _TOLD,
        "| round | half | bugs | caught | missed | false alarms | with |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in ROUNDS:
        for which in ("open", "hidden"):
            names = found.half(which)
            caught = sum(bool(found.caught[name]) for name in names)
            alarms = sum(name in found.alarms for name in names)
            lines.append(
                f"| {found.date} | {which} | {len(names)} | {caught} | {len(names) - caught} | {alarms} |"
                f" {found.versions} |"
            )
    missed = [f"`{name}`" for found in ROUNDS for name in sorted(found.caught) if not found.caught[name]]
    return [*lines, "", f"Missed at first: {', '.join(missed) or 'none'}.\n"]
