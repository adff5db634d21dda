"""What a matrix file may say, and what is said of one that may not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.expand import cells, load
from pytest_llmdevice.matrix.model_names import architectures
from pytest_llmdevice.matrix.schema import Matrix
from pytest_llmdevice.matrix.vocabulary import DTYPES

GOOD = {"models": '["llama"]', "devices": '["cpu"]', "dtypes": '["float32"]'}

AXIS_KEYS = "models, devices, dtypes, quantization, strategies, attention"


def matrix_text(extra: str = "", **axes: str) -> str:
    """A matrix file that is good but for `axes` and `extra`."""
    return "\n".join(f"{key} = {value}" for key, value in (GOOD | axes).items()) + f"\n{extra}\n"


def read(folder: Path, text: str) -> Matrix:
    (folder / "mine.toml").write_text(text)
    return load("mine.toml", folder)


def complaint(folder: Path, text: str) -> str:
    """The message without its head, which every test of a complaint thereby holds to name the file."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    head, message = str(caught.value).split(": ", 1)
    assert head == f"matrix {folder / 'mine.toml'}"
    return message


def test_three_axes_are_enough_and_the_others_have_one_plain_value(tmp_path: Path) -> None:
    matrix = read(tmp_path, matrix_text())
    assert (matrix.quantization, matrix.strategies, matrix.attention) == (("none",), ("to",), ("default",))
    assert matrix.coverage == "full"


def test_a_single_name_stands_for_a_list_of_one(tmp_path: Path) -> None:
    assert read(tmp_path, matrix_text(models='"gpt2"')).models == ("gpt2",)


def test_a_star_stands_for_every_model(tmp_path: Path) -> None:
    assert read(tmp_path, matrix_text(models='"*"')).models == vocabulary.models()


def test_checkpoints_by_path_and_from_the_hub_are_models(tmp_path: Path) -> None:
    given = ("path:./mine", "hub:org/name@v1")
    assert read(tmp_path, matrix_text(models=str(list(given)))).models == given


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:0", "cuda:12", "cuda:*", "rocm:1", "xpu:*"])
def test_a_device_is_written_with_an_index_where_there_can_be_several(device: str, tmp_path: Path) -> None:
    assert read(tmp_path, matrix_text(devices=f'"{device}"')).devices == (device,)


def test_a_matrix_cannot_be_changed(tmp_path: Path) -> None:
    matrix = read(tmp_path, matrix_text())
    with pytest.raises(ValidationError, match="frozen"):
        matrix.models = ("gpt2",)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            'dtype = ["float32"]',
            (
                f"dtype: unknown key 'dtype'; did you mean 'dtypes'? (valid: {AXIS_KEYS}, description, extends, "
                "coverage, exclude, include, vary, expect, quantizations, mixed, cards, require)"
            ),
        ),
        (
            '[[exclude]]\nmodels = ["llama"]\n[[exclude]]\nstrategy = ["to"]',
            f"exclude[1].strategy: unknown key 'strategy'; did you mean 'strategies'? (valid: {AXIS_KEYS}, reason)",
        ),
        (
            '[[include]]\ndevice = ["cpu"]',
            f"include[0].device: unknown key 'device'; did you mean 'devices'? (valid: {AXIS_KEYS}, reason)",
        ),
        (
            "[[expect]]\ntolerence = 1.0",
            (
                "expect[0].tolerence: unknown key 'tolerence'; did you mean 'tolerance'? "
                f"(valid: {AXIS_KEYS}, checks, tolerance, xfail, dense, random_state, source, versions)"
            ),
        ),
        (
            '[require]\nmodle = ["llama"]',
            f"require.modle: unknown key 'modle'; did you mean 'models'? (valid: {AXIS_KEYS}, checks)",
        ),
    ],
    ids=["top", "exclude", "include", "expect", "require"],
)
def test_an_unknown_key_is_named_with_its_place_the_nearest_key_and_all_keys(
    extra: str, message: str, tmp_path: Path
) -> None:
    assert complaint(tmp_path, matrix_text(extra)) == message


@pytest.mark.parametrize(
    ("axis", "value", "message"),
    [
        ("models", "lama", "unknown model 'lama'; did you mean 'llama'?"),
        ("devices", "cdua:0", "unknown device 'cdua:0'; did you mean 'cuda:N'?"),
        ("dtypes", "bfloat", "unknown dtype 'bfloat'; did you mean 'bfloat16'?"),
        ("quantization", "nf5", "unknown quantization 'nf5'; did you mean 'nf4'?"),
        ("strategies", "disk-ofload", "unknown strategy 'disk-ofload'; did you mean 'disk-offload'?"),
        ("attention", "spda", "unknown attention implementation 'spda'; did you mean 'sdpa'?"),
    ],
)
def test_an_unknown_value_of_an_axis_is_named_with_the_nearest_one(
    axis: str, value: str, message: str, tmp_path: Path
) -> None:
    assert complaint(tmp_path, matrix_text(**{axis: f'["{value}"]'})).startswith(f"{axis}: {message} (valid: ")


@pytest.mark.parametrize(
    ("axis", "valid"),
    [
        ("devices", ("cpu", "cuda", "cuda:N", "cuda:*", "rocm", "rocm:N", "rocm:*", "mps", "xpu", "xpu:N", "xpu:*")),
        ("dtypes", DTYPES),
        ("quantization", vocabulary.quantizations()),
        ("strategies", vocabulary.strategies()),
        ("attention", ("default", "eager", "sdpa", "flash_attention_2", "flex_attention")),
    ],
)
def test_an_unknown_value_lists_all_valid_ones(axis: str, valid: tuple[str, ...], tmp_path: Path) -> None:
    message = complaint(tmp_path, matrix_text(**{axis: '["zzzz"]'}))
    assert message.endswith(f"'zzzz' (valid: {', '.join(valid)})")


def test_an_unknown_model_lists_the_families_and_says_where_the_architectures_are(tmp_path: Path) -> None:
    message = complaint(tmp_path, matrix_text(models='["zzzz"]'))
    valid = ", ".join((*vocabulary.models(), "path:DIR", "hub:ORG/NAME@REVISION", "hub-config:ORG/NAME@REVISION"))
    assert message == (
        f"models: unknown model 'zzzz' (valid: {valid}, and the {len(architectures())} architectures that "
        "`llmdevice zoo` lists)"
    )


@pytest.mark.parametrize("table", ["exclude", "include", "expect", "require"])
@pytest.mark.parametrize("axis", ["models", "devices", "dtypes", "quantization", "strategies", "attention"])
def test_an_unknown_value_is_found_in_every_table(table: str, axis: str, tmp_path: Path) -> None:
    heads = {"require": "[require]", "expect": "[[expect]]\nxfail = 'x'"}
    head = heads.get(table, f"[[{table}]]")
    place = "require" if table == "require" else f"{table}[0]"
    message = complaint(tmp_path, matrix_text(f'{head}\n{axis} = ["zzzz"]'))
    assert message.startswith(f"{place}.{axis}: unknown ")
    assert "'zzzz' (valid: " in message


@pytest.mark.parametrize("model", ["path:", "hub:"])
def test_a_checkpoint_needs_a_name_after_its_prefix(model: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, matrix_text(models=f'"{model}"')).startswith(f"models: unknown model '{model}'")


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_an_index_is_refused_where_there_can_only_be_one_device(kind: str, tmp_path: Path) -> None:
    message = complaint(tmp_path, matrix_text(devices=f'"{kind}:0"'))
    assert message == f"devices: device '{kind}:0' cannot have an index; did you mean '{kind}'?"


@pytest.mark.parametrize("index", ["x", "-1", "", "1.5", "01", "²"])
def test_an_index_that_is_no_number_is_refused(index: str, tmp_path: Path) -> None:
    message = complaint(tmp_path, matrix_text(devices=f'"cuda:{index}"'))
    assert message == (
        f"devices: device 'cuda:{index}' has the index {index!r} (valid: a number, or '*' for every card present)"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "dtypes: must be a list of names (got integer 3)"),
        ("true", "dtypes: must be a list of names (got boolean True)"),
        ("{ a = 1 }", "dtypes: must be a list of names (got table {'a': 1})"),
        ('["float32", 16]', "dtypes[1]: input should be a valid string (got integer 16)"),
        ("[]", "dtypes: is empty, so the matrix would have no cells; give at least one value"),
        ('[""]', "dtypes: unknown dtype '' (valid: float32, bfloat16, float16)"),
        ('["float16", "float32", "float16"]', "dtypes: given more than once: 'float16'"),
        ('["{0}"]', "dtypes: unknown dtype '{0}' (valid: float32, bfloat16, float16)"),
    ],
    ids=["integer", "boolean", "table", "integer inside", "empty", "empty name", "twice", "braces"],
)
def test_an_axis_is_a_list_of_different_names(value: str, message: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, matrix_text(dtypes=value)) == message


def test_a_model_given_beside_the_star_is_given_twice(tmp_path: Path) -> None:
    assert complaint(tmp_path, matrix_text(models='["*", "opt"]')) == "models: given more than once: 'opt'"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ('coverage = "pair"', "coverage: unknown value 'pair'; did you mean 'pairwise'? (valid: full, pairwise)"),
        ("coverage = 3", "coverage: unknown value 3 (valid: full, pairwise)"),
        ("description = 3", "description: input should be a valid string (got integer 3)"),
        ("extends = 3", "extends: input should be a valid string (got integer 3)"),
        ('exclude = "llama"', "exclude[0]: must be one table (got string 'llama')"),
        (
            '[exclude]\nmodels = ["llama"]',
            "exclude: must be a list of tables, each under [[exclude]] (got table {'models': ['llama']})",
        ),
        ("expect = 3", "expect: must be a list of tables, each under [[expect]] (got integer 3)"),
        (
            '[[require]]\nmodels = ["llama"]',
            "require: must be one table (got array [{'models': ['llama']}])",
        ),
        ("[[exclude]]\nmodels = []", "exclude[0].models: is empty; give at least one value"),
        ("[require]", f"require: requires nothing: give at least one of {AXIS_KEYS}, checks"),
        ('[[exclude]]\nreason = "all"', f"exclude[0]: excludes every cell: give at least one of {AXIS_KEYS}"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_was_given(extra: str, message: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, matrix_text(extra)) == message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            'checks = ["forward"]',
            "expect[0]: expects nothing: give 'tolerance', 'dense', 'random_state' or 'xfail'",
        ),
        ('random_state = "seeded"', "expect[0].random_state: unknown value 'seeded' (valid: kept, free)"),
        ("tolerance = -1", "expect[0].tolerance: input should be greater than 0 (got integer -1)"),
        ("tolerance = 0.0", "expect[0].tolerance: input should be greater than 0 (got float 0.0)"),
        ("tolerance = nan", "expect[0].tolerance: input should be a finite number (got float nan)"),
        ("tolerance = inf", "expect[0].tolerance: input should be a finite number (got float inf)"),
        ("tolerance = true", "expect[0].tolerance: input should be a valid number (got boolean True)"),
        ('tolerance = "0.5"', "expect[0].tolerance: input should be a valid number (got string '0.5')"),
        ('xfail = ""', "expect[0].xfail: string should have at least 1 character (got string '')"),
        ("xfail = true", "expect[0].xfail: input should be a valid string (got boolean True)"),
        (
            'xfail = "x"\nchecks = ["forwrad"]',
            (
                "expect[0].checks: unknown check 'forwrad'; did you mean 'forward'? "
                f"(valid: {', '.join(vocabulary.checks())})"
            ),
        ),
        (
            'xfail = "x"\nversions = { transformers = "5" }',
            "expect[0].versions: transformers = '5' is not a version requirement such as '>=5,<6'",
        ),
        (
            'xfail = "x"\nversions = { transformers = 5 }',
            "expect[0].versions.transformers: input should be a valid string (got integer 5)",
        ),
        ('xfail = "x"\nversions = ">=5"', "expect[0].versions: must be one table (got string '>=5')"),
    ],
)
def test_an_expectation_says_what_is_expected_and_when(lines: str, message: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, matrix_text(f"[[expect]]\n{lines}")) == message


def test_a_whole_number_is_a_tolerance(tmp_path: Path) -> None:
    assert read(tmp_path, matrix_text("[[expect]]\ntolerance = 1")).expect[0].tolerance == 1.0


@pytest.mark.parametrize(
    ("key", "pattern", "message"),
    [
        ("quantization", "nf5*", "unknown quantization pattern 'nf5*'; did you mean 'nf4'?"),
        ("dtypes", "bflaot*", "unknown dtype pattern 'bflaot*'; did you mean 'bfloat16'?"),
        ("devices", "cdua:*", "unknown device 'cdua:*'; did you mean 'cuda:*'?"),
        ("devices", "cpu:*", "device 'cpu:*' cannot have an index; did you mean 'cpu'?"),
        ("devices", "cuda", "device 'cuda' names no card; write 'cuda:0' for one or 'cuda:*' for all"),
    ],
)
def test_a_selection_that_no_cell_could_match_is_refused(key: str, pattern: str, message: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, matrix_text(f'[[exclude]]\n{key} = ["{pattern}"]')).startswith(
        f"exclude[0].{key}: {message}"
    )


@pytest.mark.parametrize("pattern", ["cuda:*", "cuda:[1-9]*", "rocm:?", "*", "[cx]*"])
def test_a_selection_of_devices_may_have_wildcards(pattern: str, tmp_path: Path) -> None:
    rule = read(tmp_path, matrix_text(f'[[exclude]]\ndevices = ["{pattern}"]')).exclude[0]
    assert rule.devices == (pattern,)


def test_all_problems_of_a_file_are_one_error_with_a_line_for_each(tmp_path: Path) -> None:
    message = complaint(tmp_path, matrix_text("[require]\nx = 1", models='["lama"]', dtypes='["f32"]'))
    assert [line.strip().partition(":")[0] for line in message.splitlines()] == ["", "models", "dtypes", "require.x"]


def test_every_axis_that_has_no_default_is_asked_for(tmp_path: Path) -> None:
    message = complaint(tmp_path, 'models = ["llama"]')
    assert message.splitlines()[1:] == [
        "  devices: missing; every matrix needs it",
        "  dtypes: missing; every matrix needs it",
    ]


def test_a_matrix_without_cells_is_an_error(tmp_path: Path) -> None:
    text = matrix_text('[[exclude]]\nmodels = ["*"]', dtypes='["float32", "float16"]')
    with pytest.raises(ConfigurationError, match=r"empty: \[\[exclude\]\] removes all 2 cells of the product"):
        cells(read(tmp_path, text), lambda _: [("cpu", "cpu")])


def test_two_models_that_an_id_cannot_tell_apart_are_an_error(tmp_path: Path) -> None:
    matrix = read(tmp_path, matrix_text(models='["path:a/b", "path:a.b"]'))
    with pytest.raises(ConfigurationError, match=r"'path:a/b' and 'path:a\.b' differ only in characters"):
        cells(matrix, lambda _: [("cpu", "cpu")])
