"""What the checks say about a plain load of every architecture of the installed transformers, built tiny.

A plain load is right by definition. What a check finds in one is either a property of the architecture in this version
of the libraries (`benchmarks.upstream` says which, and how it was understood) or a false alarm. So findings are taken
here as the checks make them, before they are held against a plain load: that would make this measure pass whatever
they say.

    python -m benchmarks.architectures [NAME ...] [--traits] [--dtype bfloat16] [--quantization nf4]
        [--device cuda:0] [--strategy split] [--seconds 120] [--json FILE] [--markdown FILE]

A NAME may have traits, `llama~no-pad`; `--traits` is each curated family with each of its traits.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.upstream import property_of
from pytest_llmdevice.matrix.model_names import TRAIT
from pytest_llmdevice.oracle.process import VARIABLE, OracleProcess

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from pytest_llmdevice.checks.result import Result
    from pytest_llmdevice.loading.load import Loaded
    from pytest_llmdevice.matrix.cell import Cell

Found = tuple[str, str, str, str]
"""A finding: check, place, expected, found."""

OUTCOMES = ("passed", "upstream", "false alarm", "cannot be built", "not supported")


@dataclass(frozen=True, slots=True)
class Looked:
    """What the checks said about one architecture.

    Attributes:
        name: of the architecture.
        outcome: one of `OUTCOMES`.
        why: the properties upstream, the reason, or the checks that raised a false alarm.
        findings: what the checks found.
        seconds: how long it took.
    """

    name: str
    outcome: str
    why: str
    findings: tuple[Found, ...] = ()
    seconds: float = 0.0


def look(name: str, options: argparse.Namespace) -> Looked:
    """Build `name`, load it plainly, and make all checks."""
    from pytest_llmdevice.errors import CheckpointUnavailable, UnsupportedByLibrary
    from pytest_llmdevice.simulation import simulate
    from pytest_llmdevice.zoo import checkpoint
    from pytest_llmdevice.zoo.architectures import checkpoint_of

    started = time.monotonic()
    try:
        folder = checkpoint(name) if TRAIT in name else checkpoint_of(name)
    except UnsupportedByLibrary as error:
        return Looked(name, "cannot be built", str(error).partition(": ")[2])
    except CheckpointUnavailable as error:
        return Looked(name, "cannot be built", str(error))
    cell = _cell(name, options)
    found: list[Found] = []
    with simulate("cuda:2") if cell.simulated else nullcontext():
        loaded = load(str(folder), cell)
        if loaded.unsupported:
            return Looked(name, "not supported", loaded.unsupported, (), time.monotonic() - started)
        for result in results_of(str(folder), loaded):
            found += findings_of(result)
            if options.verbose and not result.passed:
                print(result.message(cell.id), flush=True)
    return judged(name, tuple(found), cell, time.monotonic() - started)


def _cell(name: str, options: argparse.Namespace) -> Cell:
    from pytest_llmdevice.matrix.cell import Cell

    asked = (options.device, options.dtype, options.quantization, options.strategy)
    return Cell(f"arch-{name}", *asked, simulated=options.device != "cpu")


def load(checkpoint: str, cell: Cell) -> Loaded:
    """A plain load of `checkpoint`."""
    from pytest_llmdevice.checks.refusals import refused
    from pytest_llmdevice.loading.load import Leftovers, Loaded
    from pytest_llmdevice.loading.target import BuiltinTarget

    return refused(Loaded.load(BuiltinTarget(), Path(checkpoint), cell, Leftovers()), checkpoint)


def results_of(checkpoint: str, loaded: Loaded) -> Iterator[Result]:
    """What every check says about a plain load of `checkpoint`, not held against another one; releases it."""
    from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination
    from pytest_llmdevice.checks.examine import not_loaded
    from pytest_llmdevice.inference.prompts import encode, load_tokenizer
    from pytest_llmdevice.loading.target import BuiltinTarget
    from pytest_llmdevice.oracle.reference import reference
    from pytest_llmdevice.zoo import cache_directory

    if loaded.model is None:
        yield not_loaded(loaded)
        return
    prompts = encode(load_tokenizer(checkpoint))
    expected = reference(checkpoint, prompts, NEW_TOKENS, cache_directory() / "references")
    try:
        exam = Examination(BuiltinTarget(), checkpoint, loaded.cell, loaded, prompts, expected)
        for name in exam.checks():
            yield exam.unjudged(name)
    finally:
        loaded.release()


def warm_up(options: argparse.Namespace) -> None:
    """Import here what all children need, by the checks of one small model: most of the time goes into that."""
    from pytest_llmdevice.matrix.cell import Cell
    from pytest_llmdevice.zoo.architectures import checkpoint_of

    folder = str(checkpoint_of("llama"))
    for _ in results_of(folder, load(folder, Cell("llama", "cpu", options.dtype, options.quantization, "to"))):
        pass


def findings_of(result: Result) -> list[Found]:
    """The findings of a result, what it excuses included: nothing is excused here but by `benchmarks.upstream`."""
    found = [(result.check, one.where, one.expected, one.actual) for one in (*result.findings, *result.upstream)]
    return [*found, (result.check, "the check", "something to look at", "nothing")] if result.hollow else found


def judged(name: str, found: tuple[Found, ...], cell: Cell, seconds: float) -> Looked:
    """The outcome of findings: upstream if each of them is a known property of the architecture."""
    family, about = name.partition(TRAIT)[0], (cell.quantization, cell.dtype, cell.strategy)
    known = {one: property_of(family, one, *about) for one in found}
    alarms = list(dict.fromkeys(one[0] for one, why in known.items() if not why))
    if alarms:
        return Looked(name, "false alarm", ", ".join(alarms), found, seconds)
    properties = list(dict.fromkeys(why for why in known.values() if why))
    return Looked(name, "upstream" if properties else "passed", "; ".join(properties), found, seconds)


def pairs() -> list[str]:
    """Each curated family with each trait that it can have."""
    from pytest_llmdevice.errors import ConfigurationError
    from pytest_llmdevice.zoo import families
    from pytest_llmdevice.zoo.fits import refuse_unfit
    from pytest_llmdevice.zoo.traits import TRAITS

    found = []
    for name in (f"{family}{TRAIT}{trait.name}" for trait in TRAITS for family in families()):
        try:
            refuse_unfit(name)
        except ConfigurationError:
            continue
        found.append(name)
    return found


def _again(files: Sequence[Path], options: argparse.Namespace) -> dict[str, Looked]:
    """Name -> what `files` hold of it, by the properties that are known now."""
    found = {}
    for file in files:
        for entry in json.loads(file.read_text()):
            one = Looked(**{**entry, "findings": tuple(tuple(finding) for finding in entry["findings"])})
            cell = _cell(one.name, options)
            found[one.name] = judged(one.name, one.findings, cell, one.seconds) if one.findings else one
    return dict(sorted(found.items()))


def in_child(name: str, options: argparse.Namespace) -> Looked:
    """`look` in a child, which may crash or take too long."""
    fork = get_context("fork")
    reading, writing = fork.Pipe(duplex=False)
    child = fork.Process(target=_look_and_tell, args=(name, options, writing))
    child.start()
    writing.close()
    if not reading.poll(options.seconds):
        child.kill()
        looked = Looked(name, "false alarm", f"no answer in {options.seconds:g} s", (), options.seconds)
    else:
        try:
            looked = reading.recv()
        except EOFError:
            child.join()
            looked = Looked(name, "false alarm", f"the process ended with {child.exitcode}")
    child.join()
    return looked


def _look_and_tell(name: str, options: argparse.Namespace, pipe: Connection) -> None:
    try:
        looked = look(name, options)
    except BaseException as error:  # noqa: BLE001  # what the child has to say, whatever it is
        place = traceback.extract_tb(error.__traceback__)[-1]
        looked = Looked(
            name, "false alarm", f"{type(error).__name__}: {error} at {place.filename}:{place.lineno}"[:400]
        )
    pipe.send(looked)


INTRODUCTION = """# Architectures

What the checks say about a plain load of every text-generation architecture of transformers, built tiny with random
weights by `pytest_llmdevice.zoo.architectures`. A plain load is right by definition: what is `upstream` is a property
of the architecture in this version of transformers that a check cannot agree with (`benchmarks/upstream.py`); a `false
alarm` is a fault of a check. No finding was held against another plain load here, which would excuse everything.

Written by `python -m benchmarks.architectures --markdown docs/architectures.md`.
"""


def page(all_of: Sequence[Looked], options: argparse.Namespace, versions: Mapping[str, str]) -> str:
    """The results as Markdown."""
    return f"{INTRODUCTION}\n{summary(all_of, options, versions)}\n\n" + "\n".join(
        (
            "| architecture | outcome | what |",
            "|---|---|---|",
            *(f"| `{one.name}` | {one.outcome} | {one.why.replace('|', '/')} |" for one in all_of),
            "",
        )
    )


def summary(all_of: Sequence[Looked], options: argparse.Namespace, versions: Mapping[str, str]) -> str:
    """How many architectures had which outcome, in a line."""
    counts = Counter(one.outcome for one in all_of)
    cell = ", ".join(filter(None, (options.device, options.dtype, options.quantization, options.strategy)))
    libraries = " and ".join(f"{name} {version}" for name, version in versions.items())
    outcomes = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    return f"{cell}, with {libraries}: {outcomes}."


def main() -> None:
    """Print a line for each architecture, and how many had which outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--traits", action="store_true", help="each curated family with each trait that it can have")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--device", default="cpu", help="other than the cpu: on two simulated cards")
    parser.add_argument("--strategy", default="to")
    parser.add_argument("--seconds", type=float, default=180.0, help="for each architecture")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--verbose", action="store_true", help="show each failure in full")
    parser.add_argument("--again", type=Path, nargs="*", help="judge what these JSON files hold; the last one counts")
    options = parser.parse_args()
    # Before the libraries are imported, so that it is a fork; asked by all children.
    import torch
    import transformers.modeling_utils

    oracle = OracleProcess(fork=True)
    os.environ[VARIABLE] = str(oracle.wait())
    torch.set_num_threads(1)
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from pytest_llmdevice.zoo.architectures import architectures

    seen = list(_again(options.again, options).values()) if options.again else []
    if not seen:
        warm_up(options)
    wanted = options.names or (pairs() if options.traits else sorted(architectures()))
    for name in () if seen else wanted:
        looked = in_child(name, options)
        seen.append(looked)
        print(f"{looked.seconds:6.1f} s  {name:<26} {looked.outcome:<16} {looked.why}", flush=True)
        if looked.outcome == "false alarm":
            for check, where, expected, actual in looked.findings[:6]:
                print(f"              {check}: {where}: expected {expected}, found {actual}"[:300], flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(one) for one in seen], indent=1))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    print(summary(seen, options, versions))
    if options.markdown:
        options.markdown.write_text(page(seen, options, versions))


if __name__ == "__main__":
    main()
