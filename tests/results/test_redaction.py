"""Nothing secret is written, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.results.records import Run
from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.results.store import dumped
from results.builder import CPU_FP32, ResultsBuilder

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
