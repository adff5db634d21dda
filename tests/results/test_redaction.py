"""Nothing secret is written, and nothing else is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.records import adapter
from pytest_llmdevice.results.redaction import FREE, Redactor
from pytest_llmdevice.results.run_header import Run
from pytest_llmdevice.results.store import dumped
from results.builder import CARD, CPU_FP32, CUDA, PLAIN, SIMULATED, ResultsBuilder

REDACTOR = Redactor.of(
    {
        "HF_TOKEN": "a-token-of-no-known-form",
        "DATABASE_PWD": "correct horse",
        "SHORT_TOKEN": "1",
        "AUTHOR": "somebody",
        "CUDA_VISIBLE_DEVICES": "1",
    },
    Path("/home/user"),
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("--api-key=abc123", "--api-key=***"),
        ("--hf-token abc123 --other", "--hf-token *** --other"),
        ('{"access_token": "abc"}', '{"access_token": ***}'),
        ("password: hunter2", "password: ***"),
        ("use_auth_token='two words'", "use_auth_token=***"),
        ("Authorization: Basic dXNlcg==", "Authorization: Basic ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("401 for hf_ABCDEFGHIJ", "401 for ***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh", "***"),
    ],
)
def test_what_is_given_to_a_secret_name_or_has_the_form_of_a_token_is_hidden(text: str, clean: str) -> None:
    assert REDACTOR.text(text) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:password@host/path", "https://***@host/path"),
        ("git+https://only-a-token@host/path", "git+https://***@host/path"),
        ("https://host/path?token=abc&page=1", "https://host/path?token=***&page=1"),
        ("https://host:8080/path", "https://host:8080/path"),
    ],
)
def test_users_and_passwords_in_addresses_are_hidden(text: str, clean: str) -> None:
    assert REDACTOR.text(text) == clean


@pytest.mark.parametrize("text", ["is a-token-of-no-known-form.", "a correct horse"])
def test_the_value_of_a_variable_with_a_secret_name_is_hidden_wherever_it_is(text: str) -> None:
    assert "***" in REDACTOR.text(text)


@pytest.mark.parametrize("text", ["1 of 11", "somebody wrote it"])
def test_a_value_too_short_to_be_a_secret_and_one_of_an_innocent_name_stay(text: str) -> None:
    assert REDACTOR.text(text) == text


def test_values_of_variables_that_are_quoted_with_their_names_are_hidden() -> None:
    assert REDACTOR.text("CUDA_VISIBLE_DEVICES=1 hides it") == "CUDA_VISIBLE_DEVICES=*** hides it"


@pytest.mark.parametrize(
    "text",
    [
        "pad_token: expected '<pad>'",
        "bos_token='<s>'",
        "new token 3: 6 -> 7",
        "--llm-target loaders.token:load",
        "token=None",
        "max_new_tokens=20",
        "LR=0.1",
    ],
)
def test_findings_about_the_tokens_of_a_model_are_kept(text: str) -> None:
    assert REDACTOR.text(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/user/project", "~/project"),
        ("in '/home/user'", "in '~'"),
        ("file:///home/user/x", "file://~/x"),
        ("/home/userx/project", "/home/userx/project"),
        ("/home/user-2/project", "/home/user-2/project"),
        ("/home/user.old/project", "/home/user.old/project"),
    ],
)
def test_the_home_folder_is_shortened_and_a_longer_name_is_not_cut(text: str, clean: str) -> None:
    assert REDACTOR.text(text) == clean


def test_a_home_at_the_root_of_the_file_system_is_not_shortened() -> None:
    assert Redactor.of({}, Path("/")).text("/srv/models") == "/srv/models"


def test_a_secret_that_follows_its_flag_in_a_command_line_is_hidden() -> None:
    run = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}).records()[0]
    assert isinstance(run, Run)
    command = ("pytest", "--hf-token", "abc", "-k", "token", "/home/user/tests")
    line = dumped(run.model_copy(update={"command": command}), REDACTOR)
    assert '"command":["pytest","--hf-token","***","-k","token","~/tests"]' in line


RUN = ResultsBuilder(
    {CPU_FP32: {"dtypes": "failed", "loads": "passed"}, SIMULATED: {"loads": "xfail"}},
    skipped={CARD: ("absent", "absent: no CUDA device")},
    machine=CUDA,
    simulated=("cuda:2",),
    shard="1/2",
)
RECORDS = [json.loads(dumped(record, PLAIN)) for record in RUN.records()]


def texts(data: Any, free: bool = False) -> Iterator[str]:
    """The texts in `data` that are not free text, keys among them."""
    if isinstance(data, str) and not free:
        yield data
    elif isinstance(data, list):
        for value in data:
            yield from texts(value, free)
    elif isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from texts(value, free or key in FREE or (key == "devices" and isinstance(value, str)))


@pytest.mark.parametrize("word", sorted({word for record in RECORDS for word in texts(record)}))
def test_no_secret_makes_another_record_of_a_record(word: str) -> None:
    redactor = Redactor.of({"CACHE_KEY": word, "HF_TOKEN": f"{word}{word}", "MY_SECRET": word[:6]}, Path("/home/user"))
    for record in RUN.records():
        clean = adapter().validate_json(dumped(record, redactor))
        before, after = (list(texts(each.model_dump(mode="json"))) for each in (record, clean))
        assert after == before


@pytest.mark.parametrize("word", ["bfloat16", "llama", "failed", "disk-offload", "dtypes"])
def test_a_word_that_results_are_made_of_is_no_secret(word: str) -> None:
    assert Redactor.of({"CACHE_KEY": word}, Path("/home/user")).text(f"expected {word}") == f"expected {word}"


@pytest.mark.parametrize(
    ("secret", "text", "clean"),
    [
        ("expected", "expected unexpectedly", "*** unexpectedly"),
        ("a1b2", "a1b2 and xa1b2x", "*** and xa1b2x"),
        ("12345678", "12345678 of 123456789", "*** of 123456789"),
        ("correct-horse", "xcorrect-horsex", "x***x"),
        ("true", "true", "true"),
        ("1234", "1234 bytes", "1234 bytes"),
    ],
)
def test_a_short_secret_or_one_that_is_a_word_is_hidden_where_it_is_a_word_by_itself(
    secret: str, text: str, clean: str
) -> None:
    assert Redactor.of({"MY_SECRET": secret}, Path("/home/user")).text(text) == clean


def test_a_model_in_the_home_folder_keeps_its_name() -> None:
    cell = Cell("path:/home/user/model", "cpu", "float32")
    (_, planned, *_) = ResultsBuilder({cell: {"loads": "passed"}}).records()
    assert adapter().validate_json(dumped(planned, REDACTOR)) == planned
