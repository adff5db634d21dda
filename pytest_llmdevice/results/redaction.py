"""Hides secrets, and shortens home folders to `~`, in the free text of everything that is written to a file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, get_args

from pytest_llmdevice.errors import FailureClass
from pytest_llmdevice.matrix.vocabulary import (
    ATTENTIONS,
    DTYPES,
    checks,
    kinds,
    models,
    quantizations,
    strategies,
)
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS

HIDDEN: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|_KEY$|_PWD$|AUTH(?!OR)", re.IGNORECASE
)
_SHORTEST: Final = 4
"""Characters that a secret has at least: a shorter value is a flag."""

_SHORTEST_WORD: Final = 6
"""Characters of a secret that is a word or a number."""

_STRONG: Final = 8
"""Characters of a secret that is hidden within other words too, where it is no word itself."""

_WORD: Final = re.compile(r"[a-z]+|[A-Z]+|[A-Z][a-z]+|[0-9]+", re.ASCII)
"""What is in any text by chance: a word, or a number."""

FREE: Final = frozenset({"command", "reason", "message", "where", "expected", "actual", "advice", "evidence"})
"""Keys of records that hold words for people. All else is an id, an axis, an outcome, a name or a version, by which
records are told apart and compared: hiding a part of it would make another record of it, or none."""


def _vocabulary() -> frozenset[str]:
    """Words that results are made of, none of which is a secret, whatever variable has it as its value."""
    named = (DTYPES, ATTENTIONS, models(), kinds(), quantizations(), strategies(), checks())
    return frozenset(word for words in (*named, OUTCOME_WORDS, get_args(FailureClass)) for word in words)


_TOKENS: Final = re.compile(
    r"\b(hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|sk-[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{12,}|"
    r"xox[abprs]-[A-Za-z0-9-]{8,}|glpat-[\w-]{16,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)"
)
# A tokenizer's own tokens are no secrets, and findings are about them.
_NAME: Final = (
    r"(?!(?:[\w-]*[_-])?(?:bos|eos|pad|unk|cls|sep|mask|image)_token\b)"
    r"[\w-]*(?:token|secret|passw(?:or)?d|passphrase|credentials?|api[_-]?key|access[_-]?key|private[_-]?key)"
)
_VALUE: Final = r"(?!(?:None|null|True|False|\d{1,6})\b)(?P<value>\"[^\"]*\"|'[^']*'|[^\s'\",;&]+)"
_GIVEN: Final = re.compile(
    # `token=x`, `"token": "x"`, `--token x`; but not `module.token:attribute`.
    rf"(?P<name>(?<![\w-]){_NAME}['\"]?\s*(?:=|:\s)\s*|(?<!\S)--{_NAME}\s+|"
    rf"Bearer\s+|Authorization:\s*(?:\w+\s+)?){_VALUE}",
    re.IGNORECASE,
)
_FLAG: Final = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\b(?P<name>[A-Z][A-Z0-9_]{2,})=(?P<value>[^\s;,)]+)")
_USERINFO: Final = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^/\s:@]+(?::[^/\s@]*)?@", re.IGNORECASE)


def _is_secret(value: str) -> bool:
    # A short word or number is a flag, `true`, and would be found in every other sentence.
    return len(value) >= (_SHORTEST_WORD if _WORD.fullmatch(value) else _SHORTEST)


@dataclass(frozen=True, slots=True)
class Redactor:
    """Shortens home folders to `~` and hides secrets in texts.

    Hidden are values of environment variables whose names sound secret, tokens of well-known forms, what is given to
    a name such as `token=`, users and passwords in addresses, and the values of variables that are quoted with their
    names (`CUDA_VISIBLE_DEVICES=1`).

    Attributes:
        homes: the folders to shorten, the longest first.
        secrets: values to hide wherever they are found, the longest first.
        variables: names of the variables of the environment.
    """

    homes: tuple[str, ...]
    secrets: tuple[str, ...]
    variables: frozenset[str]

    @classmethod
    def of(cls, environment: Mapping[str, str] | None = None, home: Path | None = None) -> Self:
        """For `environment` and `home`; those of this process when left out."""
        environment = os.environ if environment is None else environment
        home = Path.home() if home is None else home
        secret = {value for name, value in environment.items() if _SECRET_NAME.search(name) and _is_secret(value)}
        secret -= _vocabulary()
        homes = {str(home), str(home.resolve())} - {"/", "."}
        return cls(
            tuple(sorted(homes, key=len, reverse=True)),
            tuple(sorted(secret, key=len, reverse=True)),
            frozenset(environment),
        )

    def text(self, text: str) -> str:
        """`text` without secrets."""
        for secret in self.secrets:
            if _WORD.fullmatch(secret) or len(secret) < _STRONG:
                text = re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", HIDDEN, text)
            else:
                text = text.replace(secret, HIDDEN)
        text = _TOKENS.sub(HIDDEN, text)
        text = _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", text)
        text = _GIVEN.sub(rf"\g<name>{HIDDEN}", text)
        return self.at_home(_VARIABLE.sub(self._variable, text))

    def at_home(self, text: str) -> str:
        """`text` with home folders as `~`."""
        for home in self.homes:
            text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
        return text

    def _variable(self, match: re.Match[str]) -> str:
        return f"{match['name']}={HIDDEN}" if match["name"] in self.variables else match[0]

    def record(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a record with what is free text in it redacted, see `FREE`; the rest is left as it is."""
        clean: dict[str, Any] = {}
        for key, value in data.items():
            # Of a cell these are words; of a machine, a list of devices.
            if key in FREE or (key == "devices" and isinstance(value, str)):
                clean[key] = self.data(value)
            elif key == "matrix":
                clean[key] = value | {"name": self.at_home(value["name"])}
            elif isinstance(value, list):
                clean[key] = [self.record(inner) if isinstance(inner, dict) else inner for inner in value]
            else:
                clean[key] = value
        return clean

    def data(self, value: Any) -> Any:
        """`value`, made of dictionaries, lists and texts, with each text redacted; keys are left as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.data(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            before = ("", *value)
            # Of a command line: the flag and its value are two texts.
            return [
                HIDDEN
                if isinstance(flag, str) and isinstance(inner, str) and _FLAG.fullmatch(flag)
                else self.data(inner)
                for flag, inner in zip(before, value, strict=False)
            ]
        return value
