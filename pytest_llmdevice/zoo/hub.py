"""Downloads checkpoints from the Hugging Face Hub, after a look at local files: weights and text files only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pytest_llmdevice.errors import CheckpointUnavailable, ConfigurationError

_TOKENIZER_PATTERNS: Final = ("tokenizer*", "vocab*", "merges.txt", "spiece.model", "sentencepiece.bpe.model")

ALLOWED_PATTERNS: Final = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    *_TOKENIZER_PATTERNS,
)
"""The files that are downloaded. Pickles and code are left out, so that nothing of the repository is executed."""

_SMALL_PATTERNS: Final = tuple(pattern for pattern in ALLOWED_PATTERNS if "safetensors" not in pattern)

_IGNORED_PATTERNS: Final = ("*/*", "consolidated*", "*.py")
"""Other formats of the same weights, which repositories keep in subfolders or in the same folder."""


def download(repository: str, revision: str, *, weights: bool = True) -> Path:
    """Return the snapshot folder of `repository` (`"org/name"`) at `revision` in the Hugging Face cache.

    Without `weights`, configuration and tokenizer are enough, and nothing else is asked for.

    No request is made if a complete snapshot is there already; a branch then stays at the commit that was downloaded.
    Token, endpoint, cache and offline mode are those of `huggingface_hub`.

    Raises:
        CheckpointUnavailable: it is not in the cache and cannot be downloaded; the message is a sentence.
        ConfigurationError: `repository` is not the name of a repository.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        local = _snapshot(repository, revision, local_files_only=True, weights=weights)
    except HFValidationError:
        raise ConfigurationError(f"hub:{repository} is no model: expected hub:org/name@revision") from None
    except LocalEntryNotFoundError:
        local = None
    if local is not None and missing_file(local, weights=weights) is None and _has_tokenizer(local):
        return local
    subject = f"{repository} at revision {revision}"
    if constants.HF_HUB_OFFLINE:
        # Some users bring their own tokenizer; only online is it worth asking for the repository's again.
        if local is not None and missing_file(local, weights=weights) is None:
            return local
        raise CheckpointUnavailable(f"{subject} is not in the local cache and HF_HUB_OFFLINE is set")
    try:
        folder = _snapshot(repository, revision, local_files_only=False, weights=weights)
    except Exception as error:  # the HTTP library's exceptions are not wrapped, and the library differs by version
        if local is not None and missing_file(local, weights=weights) is None:
            return local
        raise CheckpointUnavailable(f"{subject} {_reason(error)}") from error
    if missing := missing_file(folder, weights=weights):
        raise CheckpointUnavailable(f"{subject} has no {missing}, and no other format is loaded")
    return folder


def refuse_impossible_name(repository: str, scheme: str = "hub") -> None:
    """Do nothing if a repository can have this name.

    Raises:
        ConfigurationError: none can.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise ConfigurationError(f"{scheme}:{repository} is no model: expected {scheme}:org/name@revision") from None


def missing_file(folder: Path, *, weights: bool = True) -> str | None:
    """The first configuration or, with `weights`, weight file that is needed and `folder` lacks; None if complete."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if not weights:
        return None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return next((shard for shard in sorted(shards) if not (folder / shard).is_file()), None)
    return None if any(folder.glob("*.safetensors")) else "model.safetensors"


def _snapshot(repository: str, revision: str, *, local_files_only: bool, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        repository,
        revision=revision,
        local_files_only=local_files_only,
        allow_patterns=list(ALLOWED_PATTERNS if weights else _SMALL_PATTERNS),
        ignore_patterns=list(_IGNORED_PATTERNS),
    )
    return Path(folder)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of the tokenizer in `folder`, in the order of their names; none where it has none."""
    if not _has_tokenizer(folder):
        return []
    patterns = (*_TOKENIZER_PATTERNS, "special_tokens_map.json", "added_tokens.json", "chat_template*")
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _has_tokenizer(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in _TOKENIZER_PATTERNS)


def _reason(error: Exception) -> str:
    """The reason why a download failed, as the end of a sentence."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # `snapshot_download` raises "not found locally" from the original exception.
    for cause in _chain(error):
        if isinstance(cause, GatedRepoError):
            return "is gated: accept its terms on the hub and log in (`hf auth login` or HF_TOKEN)"
        if isinstance(cause, RevisionNotFoundError):
            return "cannot be had: the repository has no such revision"
        # The hub answers 401 for a missing repository too, in order not to reveal which private ones exist.
        if isinstance(cause, RepositoryNotFoundError) or _status(cause) == 401:
            return "cannot be had: there is no such repository on the hub, or it is private"
        # In huggingface_hub 0.x "not found locally" is an HTTP error too, without a response.
        if isinstance(cause, HfHubHTTPError) and _status(cause) is not None:
            return f"cannot be had: the hub answered HTTP {_status(cause)}"
    root = list(_chain(error))[-1]
    first_line = str(root).partition("\n")[0]
    return f"cannot be downloaded: the hub could not be reached ({type(root).__name__}: {first_line})"


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
