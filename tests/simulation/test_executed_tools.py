"""What is asked of the CUDA build, what of its answers is believed, and what is said where it cannot be asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from simulation.ground_truth.declare import Case, Gives, Raises
from simulation.ground_truth.executed import (
    autocast_samples,
    build,
    extra,
    generator_calls,
    module_samples,
    record,
    rows,
)
from simulation.ground_truth.executed.run import Executed, executed, in_child, unseen
from simulation.ground_truth.executed.samples import Sample, cases, on_host, placements
from simulation.ground_truth.executed.spelling import Unspellable, called, spelled

GAVE = Executed(Gives(("cuda:0 float32",)), launches=1)
CASE = Case("a + b [...]", {"a": "cuda:0 float32 3", "b": "cpu float32 3"}, "a + b", None, "", values=False)

NEEDS_EXPECTTEST = pytest.mark.skipif(
    find_spec("expecttest") is None, reason="PyTorch's database of samples needs expecttest"
)


def raised(text: str, *, reads: int = 0) -> Executed:
    return Executed(Raises("RuntimeError", text), launches=1, reads=reads)


BELIEVED = {
    "a result": (GAVE, GAVE),
    "a result after a read": (Executed(GAVE.outcome, reads=2), Executed(GAVE.outcome, reads=2)),
    "a refusal before any read": (raised("anything"), raised("anything")),
    "a refusal by places after a read": (
        raised("Expected all tensors to be on the same device", reads=1),
        raised("Expected all tensors to be on the same device", reads=1),
    ),
}
NOT_BELIEVED = {
    "another result over other bytes": (GAVE, raised("index out of range"), "depends on values"),
    "a refusal after a read": (raised("must be positive", reads=1), raised("must be positive", reads=1), "may depend"),
    "a value that was read": (
        Executed(Gives(("= 1.0",)), reads=1), Executed(Gives(("= 1.0",)), reads=1), "depends on values",
    ),
    "a library": (raised("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),) * 2 + ("a library of NVIDIA's",),
    "a crash": (Executed(None, died="SIGSEGV"),) * 2 + ("code of the processor reads a card's memory",),
    "no end": (Executed(None, died="SIGALRM"),) * 2 + ("the process ended: SIGALRM",),
}  # fmt: skip


@pytest.mark.parametrize("pair", BELIEVED.values(), ids=BELIEVED)
def test_what_no_value_decides_is_believed(pair: tuple[Executed, Executed]) -> None:
    assert unseen(*pair) is None


@pytest.mark.parametrize("case", NOT_BELIEVED.values(), ids=NOT_BELIEVED)
def test_what_the_method_cannot_see_is_left_out_with_the_reason(case: tuple[Executed, Executed, str]) -> None:
    first, second, reason = case
    assert (unseen(first, second) or "").startswith(reason)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    kept = [
        rows.raw("add", CASE, raised("no")),
        rows.raw(
            "add", Case("a + b [other]", {"a": "cuda:0 float32 3", "b": "cuda:0 float32 3"}, "a + b", None, ""), GAVE
        ),
        rows.raw("", Case("declared/row", {"x": "cpu float32 2"}, "x", None, ""), GAVE),
    ]
    path = tmp_path / "rows.json"
    path.write_text(rows.written({"torch": "2.13.0"}, kept, {"depends on values": 2}), encoding="utf-8")
    header, declared, calls = rows.read(path)
    assert header == {"torch": "2.13.0", "left out": {"depends on values": 2}}
    assert declared == {"declared/row": GAVE.outcome}
    (call,) = calls
    assert [(case.operands, outcome) for case, outcome in call.rows] == [
        (CASE.operands, Raises("RuntimeError", "no")),
        ({"a": "cuda:0 float32 3", "b": "cuda:0 float32 3"}, GAVE.outcome),
    ]


def test_only_what_two_runs_agree_about_is_kept() -> None:
    case = Case("a", {"a": "cuda:0 float32 3"}, "a", None, "")
    first = [rows.raw("x", case, Executed(GAVE.outcome, reads=1)), rows.raw("x", CASE, raised("no"))]
    second = [rows.raw("x", case, raised("something else", reads=1))]
    kept, left_out = rows.judged(first, second)
    assert [row["id"] for row in kept] == [CASE.id]
    assert left_out == {"depends on values": 1}


def test_a_child_says_what_it_saw_or_how_it_ended() -> None:
    def ends(how: Callable[[], None]) -> dict[str, int]:
        how()
        return {}

    assert in_child(lambda: {"seen": 1}) == ({"seen": 1}, "")
    assert in_child(lambda: ends(lambda: os.kill(os.getpid(), signal.SIGKILL))) == (None, "SIGKILL")
    assert in_child(lambda: ends(lambda: os._exit(3))) == (None, "status 3")
    assert in_child(lambda: ends(sys.exit)) == (None, "status 1"), "and goes no further in this test"
    assert in_child(lambda: {"seen": int("one")}) == (None, "status 1")


def test_without_the_stand_in_nothing_is_executed() -> None:
    with pytest.raises(RuntimeError, match="not started with the stand-in"):
        next(executed([CASE]))


def test_calls_are_spelled_by_public_names() -> None:
    ones = torch.ones(2, 3)
    call = spelled(torch.add, (ones, ones[0]), {"alpha": 2})
    assert call.code == "torch.add(a, b, alpha=2)"
    assert call.operands == {"a": "float32 2x3", "b": "float32 3"}
    assert spelled(torch.Tensor.cumsum_, (ones, 0), {}).code == "a.cumsum_(0)"
    assert spelled(torch.nn.functional.pad, (ones, (1, 2)), {"value": float("inf")}).code == (
        "F.pad(a, (1, 2), value=float('inf'))"
    )
    for wrong in (torch.ones(2).to_sparse(), object()):
        with pytest.raises(Unspellable):
            spelled(torch.add, (ones, wrong), {})
    with pytest.raises(Unspellable, match="no public name"):
        spelled(lambda it: it, (ones,), {})


@NEEDS_EXPECTTEST
def test_modules_are_spelled_with_their_parameters_beside_an_operand() -> None:
    (linear, *_) = module_samples.samples(["nn.Linear"])
    assert linear.code == "m = nn.Linear(10, 8).to(b)\nm(input=a)"
    assert linear.operands == {"a": "float32 4x10", "b": "float32 1"}
    codes = [sample.code for sample in module_samples.samples(["nn.BatchNorm1d", "nn.ReLU"])]
    assert "m = nn.BatchNorm1d(10).eval().to(b)\nm(a)" in codes
    assert "m = nn.BatchNorm1d(10).to(b)\nm(a).sum().backward()\n[each.grad for each in m.parameters()]" in codes
    # What has no parameters is nowhere.
    assert {code for code in codes if "ReLU" in code} == {"m = nn.ReLU()\nm(a)"}


@NEEDS_EXPECTTEST
def test_listed_operations_are_asked_about_everywhere_under_autocast_and_others_on_a_card() -> None:
    assert {"mm", "exp", "cumsum", "cross", "binary_cross_entropy"} <= autocast_samples.listed()
    found = [case for _, case in autocast_samples.cases(["addmm", "square"])]
    assert all(case.code.startswith("with torch.autocast('cuda', dtype=torch.float16):") for case in found)
    devices = {
        name: {text.split()[0] for case in found if name in case.code for text in case.operands.values()}
        for name in ("torch.addmm(", "torch.square(")
    }
    assert devices == {"torch.addmm(": {"cpu", "cuda:0", "cuda:1"}, "torch.square(": {"cuda:0"}}


def test_random_numbers_are_drawn_with_a_generator_of_each_device() -> None:
    for sample in generator_calls.samples():
        # Of the CPU, all of them work.
        assert isinstance(on_host(sample.code, sample.operands).outcome, Gives), sample.code
        assert "Generator(" in sample.code or "dropout" in sample.code or "gumbel" in sample.code


def test_a_lambda_is_the_one_call_that_it_makes() -> None:
    ones = torch.ones(2)
    (call,) = called(lambda it: it.view(2, 1), (ones,), {})
    assert spelled(*call).code == "a.view(2, 1)"
    assert list(called(lambda it: (it + 1) * 2, (ones,), {})) == []


def test_operands_are_placed_every_way() -> None:
    assert list(placements(1)) == [("cuda:0",), ("cuda:1",)]
    rows_of_two = list(placements(2))
    assert ("cuda:0", "cuda:0") in rows_of_two
    assert ("cpu", "cpu") not in rows_of_two
    assert {"cpu cuda:0", "cuda:0 cpu", "cuda:1 cuda:0", "cuda:0 cuda:1"} < {" ".join(row) for row in rows_of_two}


def test_a_sample_is_asked_about_with_numbers_and_other_dtypes_too() -> None:
    found = list(cases(Sample("add", "torch.add(a, b)", {"a": "float32 3", "b": "float32 3"}, first=True)))
    operands = [tuple(case.operands.values()) for case in found]
    assert ("cuda:0 float32 3", "cpu float32 0d") in operands
    assert ("cuda:0 float16 3", "cuda:0 float16 3") in operands
    assert ("cuda:0 float32 3", "cuda:0 int64 3") in operands
    assert len(set(operands)) == len(operands)


def test_what_language_models_call_works_on_the_cpu_or_differs_in_dtypes() -> None:
    for sample in extra.samples():
        outcome = on_host(sample.code, sample.operands).outcome
        dtypes = {text.split()[0] for text in sample.operands.values()}
        only_on_cards = any(part in sample.code for part in ("Generator('cuda", "torch.float32)"))
        assert isinstance(outcome, Gives) or len(dtypes) > 1 or only_on_cards, (sample.code, outcome)


@pytest.fixture
def cuda_build(tmp_path: Path) -> Path:
    """A folder with the files of a CUDA build that are looked for, and of which none is CUDA's."""
    folder = tmp_path / "site-packages" / "torch"
    (folder / "lib").mkdir(parents=True)
    headers = folder.parent / "nvidia" / "cu13" / "include"
    (headers / "crt").mkdir(parents=True)
    (headers / "cuda_runtime_api.h").write_text("#error no CUDA here\n", encoding="utf-8")
    (headers / "cuda.h").write_text("CUresult CUDAAPI cuInit(unsigned int Flags);\n", encoding="utf-8")
    source = tmp_path / "caller.c"
    source.write_text("int cudaNoSuchThing(void); int call(void) { return cudaNoSuchThing(); }\n", encoding="utf-8")
    library = folder / "lib" / "libtorch_cuda.so"
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler here")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return folder


def test_what_is_missing_to_build_the_stand_in_is_said_in_one_sentence(
    tmp_path: Path, cuda_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(build.CannotBuild, match=r"^the compiler refuses the stand-in: .*no CUDA here"):
        build.build(cuda_build, tmp_path / "out")
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(build.CannotBuild, match=r"cannot be written to .*: (Not a directory|File exists)"):
        build.build(cuda_build, file)
    (cuda_build.parent / "nvidia" / "cu13" / "include" / "crt").rmdir()
    with pytest.raises(build.CannotBuild, match=r"install nvidia-cuda-crt$"):
        build.build(cuda_build, tmp_path / "out")
    with pytest.raises(build.CannotBuild, match="is no CUDA build of PyTorch"):
        build.build(Path(torch.__file__).parent, tmp_path / "out")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.CannotBuild, match=r"^no C compiler"):
        build.build(cuda_build, tmp_path / "out")


def test_the_functions_that_are_written_in_c_are_known_by_name() -> None:
    known = build.defined()
    assert {"cudaMalloc", "cudaLaunchKernel", "cuDevicePrimaryCtxGetState", "cublasCreate_v2"} <= known
    assert not known & {"if", "for", "launched"}


@pytest.mark.skipif(torch.version.cuda is not None, reason="this is a CUDA build")
def test_a_cpu_build_is_refused_with_how_to_ask_for_the_other() -> None:
    with pytest.raises(build.CannotBuild, match=r"no CUDA build.*--index-url https://pypi\.org/simple"):
        record.start("nothing", [])
