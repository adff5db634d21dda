"""Copies the result files of several machines into one folder, each as it is, and says what does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.files import replace_file
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.run_header import SUFFIX
from pytest_llmdevice.results.shards import unlike_shards
from pytest_llmdevice.results.store import RunFile, read


def merge(inputs: Sequence[Path], output: Path, *, force: bool = False) -> MergedResults:
    """Copy all runs in `inputs` into the folder `output`, byte by byte, and merge them.

    A run that is found twice is copied once. Everything is read and checked before anything is written.

    Args:
        inputs: files and folders, as `read` takes them.
        output: the folder; one that is not empty may hold runs of `inputs` and nothing else.
        force: let other things be in `output`; they stay, and other runs there count.

    Raises:
        ResultsError: something is wrong with an input or with what is in `output`; nothing was written.
    """
    files = read(list(inputs))
    there = _there(output, files, force=force)
    merged = merge_runs((*files, *there))
    written: list[Path] = []
    try:
        for file in files:
            place = output / f"{file.run.run}{SUFFIX}"
            data = file.path.read_bytes()
            new = not place.exists()
            if new or place.read_bytes() != data:
                replace_file(place, data)
                written += [place] if new else []
    except ResultsError:
        # A part of the runs would be taken for all of them.
        for place in written:
            place.unlink(missing_ok=True)
        raise
    return merged


def _there(output: Path, files: Sequence[RunFile], *, force: bool) -> list[RunFile]:
    """The runs in `output` that are not among `files`; raises `ResultsError` where something there is in the way."""
    if not output.exists():
        return []
    if not output.is_dir():
        raise ResultsError(f"{output}: is a file; give a folder for the results")
    ours = {f"{file.run.run}{SUFFIX}": file for file in files}
    others = sorted(path for path in output.iterdir() if path.name not in ours)
    if others and not force:
        raise ResultsError(
            f"{output}: has {others[0].name}, which is none of the runs to merge: choose another folder, give this one "
            f"as an input too, or use --force to leave it there"
        )
    for path in output.iterdir():
        if (file := ours.get(path.name)) and not file.path.read_bytes().startswith(path.read_bytes()):
            raise ResultsError(
                f"{path}: differs from {file.path}, which is the same run: remove the one that was changed"
            )
    runs = [path for path in others if path.suffix == SUFFIX]
    return [file for file in (read(runs) if runs else ()) if f"{file.run.run}{SUFFIX}" not in ours]


def mixtures(merged: MergedResults) -> Iterator[str]:
    """What the runs do not have in common though one may expect it, a sentence each."""
    names = sorted({run.matrix.name for run in merged.runs})
    if len(names) > 1:
        yield f"the runs are of {len(names)} matrices, and all of their cells are here: {', '.join(names)}"
    yield from unlike_shards(merged.runs)
    commits = dict.fromkeys(run.commit.id[:10] for run in merged.runs if run.commit)
    if len(commits) > 1:
        yield (
            f"the runs are of {len(commits)} commits, the latest {list(commits)[-1]}: a check counts as the latest run "
            "of each machine has it"
        )
    dirty = sum(run.commit is not None and run.commit.dirty for run in merged.runs)
    if dirty:
        yield f"{dirty} of {len(merged.runs)} runs were of a tree with changes that are in no commit"
