"""Builds the stand-in for the CUDA runtime, over which PyTorch's CUDA build runs without a card.

Its cards are memory of the host and its kernels do nothing. Devices, dtypes, shapes and the texts of errors are decided
by PyTorch in C++ before a kernel runs; so they are the ones of a card. What a kernel or a library of NVIDIA's computes
is not there to be seen.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "runtime"
LIBRARY: Final = "libstandin.so"
DRIVER: Final = "libcuda.so.1"

OURS: Final = re.compile(r"(cuda|__cuda|cu|nvrtc|cublas|cublasLt)[A-Z]\w*$")
"""The functions of the runtime, the driver, the compiler and cuBLAS; what is not written in C is made to do nothing."""


class CannotBuild(Exception):
    """The stand-in cannot be built here; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Standin:
    """The built stand-in.

    Attributes:
        library: what is loaded in front of the CUDA runtime.
        folder: where the driver's library is found by its name.
        torch: the folder of the CUDA build of PyTorch.
    """

    library: Path
    folder: Path
    torch: Path

    def environment(self) -> dict[str, str]:
        """The variables under which a process gets the stand-in."""
        return {"LD_PRELOAD": str(self.library), "LD_LIBRARY_PATH": str(self.folder)}


def build(torch: Path, into: Path, others: Iterable[Path] = ()) -> Standin:
    """Compile the stand-in for the CUDA build of PyTorch in the folder `torch`, into a folder of its own in `into`.

    Args:
        torch: the folder of the package `torch`, with the NVIDIA packages beside it.
        into: where to put it; what was built from the same sources for the same libraries is used again.
        others: further shared libraries that call CUDA.

    Raises:
        CannotBuild: there is no compiler, no CUDA build, no header, or no room.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise CannotBuild("no C compiler (cc, gcc or clang) is on the PATH; on Debian: apt install gcc libc6-dev")
    names = shutil.which("nm")
    if names is None:
        raise CannotBuild("no `nm` is on the PATH, which lists what a library calls; on Debian: apt install binutils")
    libraries = [*sorted((torch / "lib").glob("*.so")), *others]
    if not any(library.name == "libtorch_cuda.so" for library in libraries):
        raise CannotBuild(f"{torch} is no CUDA build of PyTorch: there is no lib/libtorch_cuda.so")
    headers = sorted((torch.parent / "nvidia").glob("*/include/cuda_runtime_api.h"))
    if not headers:
        raise CannotBuild(
            f"there is no cuda_runtime_api.h below {torch.parent / 'nvidia'}: install nvidia-cuda-runtime"
        )
    for needed, package in (("cuda.h", "nvidia-cuda-runtime"), ("crt", "nvidia-cuda-crt")):
        if not (headers[0].parent / needed).exists():
            raise CannotBuild(f"there is no {needed} in {headers[0].parent}: install {package}")
    called = {name for library in libraries for name in _undefined(names, library) if OURS.match(name)}
    # Kernels that are compiled while a program runs call whatever the driver has.
    driver = set(_DRIVER.findall((headers[0].parent / "cuda.h").read_text(encoding="utf-8", errors="replace")))
    wanted = sorted(called | driver)
    folder = into / _fingerprint(wanted, headers[0])
    built = Standin(folder / LIBRARY, folder, torch)
    if built.library.exists():
        return built
    try:
        folder.mkdir(parents=True, exist_ok=True)
        generated = folder / "others.c"
        generated.write_text("".join(_generated(wanted)), encoding="utf-8")
        include = [f"-I{headers[0].parent}", f"-I{SOURCES}"]
        sources = map(str, [*sorted(SOURCES.glob("*.c")), generated])
        _compile(compiler, [f"-Wl,-soname,{LIBRARY}", *include, *sources, "-ldl"], folder / LIBRARY)
        # Whoever opens the driver by its name finds in it what it depends on.
        needs = [f"-Wl,-soname,{DRIVER}", "-Wl,--no-as-needed", f"-L{folder}", f"-l:{LIBRARY}", "-Wl,-rpath,$ORIGIN"]
        _compile(compiler, ["-x", "c", "/dev/null", "-x", "none", *needs], folder / DRIVER)
    except OSError as error:
        raise CannotBuild(f"the stand-in cannot be written to {folder}: {error.strerror}") from error
    return built


_DRIVER: Final = re.compile(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(")


def _undefined(names: str, library: Path) -> Iterator[str]:
    listed = subprocess.run([names, "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        yield line.split()[-1].partition("@")[0]
    # And what it looks up in the driver by name.
    for name in _LOOKED_UP.findall(library.read_bytes()) if library.name == "libc10_cuda.so" else ():
        yield name.decode()


_LOOKED_UP: Final = re.compile(rb"(?<=\0)cu[A-Z][A-Za-z0-9]+(?:_v\d)?(?=\0)")


def _fingerprint(wanted: Iterable[str], header: Path) -> str:
    """What a build is made of: another compiler gives the same."""
    said = hashlib.sha256("\n".join(wanted).encode())
    said.update(str(header).encode())
    for source in sorted(SOURCES.iterdir()):
        said.update(source.read_bytes())
    said.update(Path(__file__).read_bytes())
    return said.hexdigest()[:16]


_DEFINED: Final = re.compile(r"^(?!static|return)[\w][\w \*]*?[\* ](\w+)\(", re.MULTILINE)


def defined() -> frozenset[str]:
    """The functions that are written in C."""
    return frozenset(
        name for source in SOURCES.glob("*.c") for name in _DEFINED.findall(source.read_text(encoding="utf-8"))
    )


def _generated(wanted: Iterable[str]) -> Iterator[str]:
    """C code of the functions that are called somewhere and written nowhere: they count the call and succeed.

    One that makes an object of cuBLAS gets some memory for it, since it is handed back later.
    """
    yield "#include <stdlib.h>\nvoid count_library_call(const char *);\nvoid count_unknown(const char *);\n"
    known = defined()
    for name in wanted:
        if name in known:
            continue
        if name.startswith("cublas") and name.endswith("Create"):
            yield f"int {name}(void **made) {{ *made = calloc(1, 512); return 0; }}\n"
        else:
            count = "count_library_call" if name.startswith("cublas") else "count_unknown"
            yield f'int {name}(void) {{ {count}("{name}"); return 0; }}\n'


def _compile(compiler: str, arguments: list[str], into: Path) -> None:
    # Under another name first, so that what is there is whole.
    part = into.with_suffix(".part")
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(part), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CannotBuild(f"the compiler refuses the stand-in: {said[0] if said else done.returncode}")
    part.replace(into)
