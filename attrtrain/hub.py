"""Repositories of models on the Hugging Face Hub, or on a server that speaks as it does (HF_ENDPOINT). Nothing that is
fetched from there can run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from attrtrain.errors import ConfigError, HubError
from attrtrain.wording import one_line

_PREFIX = "hf:"
_NO_REPOSITORY = "names no repository; give OWNER/NAME, both of letters, digits, single - and ., and _"


def is_repository(place: str | Path) -> bool:
    """Whether a place is a repository, `hf:owner/name` or `hf:owner/name@revision`, and not a path."""
    return str(place).startswith(_PREFIX)


def fetch(place: str, names: Sequence[str]) -> Path:
    """Downloads some files of a repository into the Hub's cache, or takes them from there without a network.

    Args:
        place: `hf:owner/name`, with `@revision` for a branch, tag or commit other than main.
        names: of the files; no other is fetched.

    Returns:
        The folder they are in. Those that the repository lacks are not.

    Raises:
        ConfigError: `place` names no repository.
        HubError: it cannot be fetched.
    """
    from huggingface_hub import snapshot_download  # not needed by who reads local folders

    repository, _, revision = place.removeprefix(_PREFIX).partition("@")
    with _failures_told(place):
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(names),
                library_name="attrtrain",
                library_version=version("attrtrain"),
            )
        )


def upload(folder: Path, repository: str, names: Sequence[str], private: bool) -> str:
    """Uploads files as one commit, so that a repository has all of them or is as it was. It is made if it is not there.

    Args:
        folder: where the files are.
        repository: `owner/name`.
        names: of the files; one that the folder lacks is removed from the repository.
        private: whether a new repository is; one that is there stays as it is.

    Returns:
        The URL of the repository.

    Raises:
        ConfigError: `repository` is no name of one.
        HubError: there is no token, no network, or no permission.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    if get_token() is None:
        raise HubError(f"{repository}: no token to upload with; log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi(library_name="attrtrain", library_version=version("attrtrain"))
    with _failures_told(repository):
        url = str(api.create_repo(repository, private=private, exist_ok=True))
        there = set(api.list_repo_files(repository))
        changes = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name)
            if (folder / name).is_file()
            else CommitOperationDelete(path_in_repo=name)
            for name in names
            if (folder / name).is_file() or name in there
        ]
        # Not upload_folder, which may cut what it uploads into several commits.
        api.create_commit(repository, changes, commit_message=f"attrtrain {version('attrtrain')}")
    return url


def require_repository(repository: str) -> None:
    """Raises ConfigError where a text is not `owner/name`. The Hub would take a name alone for one of the user's own,
    but no `hf:name` reads that.
    """
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, yet not listed

    with _failures_told(repository):
        validate_repo_id(repository)
    if "/" not in repository:
        raise ConfigError(f"{repository}: {_NO_REPOSITORY}")


@contextmanager
def _failures_told(place: str) -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError:  # whose words speak of a function's arguments
        raise ConfigError(f"{place}: {_NO_REPOSITORY}") from None
    except OfflineModeIsEnabled:
        raise HubError(f"{place}: HF_HUB_OFFLINE forbids the network; unset it") from None
    except HfHubHTTPError as error:
        raise HubError(f"{place}: {_refusal(error.response.status_code, error.server_message)}") from None
    except Exception as error:  # noqa: BLE001  each of the Hub's ways of transport has errors of its own
        raise HubError(f"{place}: cannot be done with {constants.ENDPOINT} ({one_line(_root(error))})") from None


def _root(error: BaseException) -> BaseException:
    """What came first: the errors around it speak of caches and of the Hub's own functions."""
    return error if isinstance(error, ValueError) or error.__cause__ is None else _root(error.__cause__)


def _refusal(status: int, message: str | None) -> str:
    match status:
        case 401:
            reason = "no such repository, or the token is not accepted; log in with `hf auth login`, or set HF_TOKEN"
        case 403:
            reason = "the token may not write there; it needs write access to this owner's repositories"
        case 404:
            reason = "no such repository or revision, or a private one that the token may not see"
        case _:
            reason = f"the server answered {status}"
    return f"{reason} ({' '.join(message.split())})" if message else reason
