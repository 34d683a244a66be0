"""Write files so that a reader never meets half of one: write aside, then rename."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from bayescale.errors import BayescaleError


def require_writable(path: str | Path, *, suffix: str = "", source: str = "") -> None:
    """Raise unless a file can be made at `path`; said before long work, not after it.

    Parameters
    ----------
    path : path
        Of the file to make.
    suffix : str
        With which it must end.
    source : str
        A file that it must not overwrite.

    Raises
    ------
    BayescaleError
        If the folder does not exist or cannot be written, or `path` is a folder, a device, the source, or has
        another suffix.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise BayescaleError(f"{path}: cannot write here (it is {what}); choose a file's path")
    if suffix and path.suffix.lower() != suffix:
        raise BayescaleError(
            f"{path}: found a name that ends in {path.suffix or 'nothing'!r}; expected {suffix}"
        )
    if source and os.path.realpath(path) == os.path.realpath(source):
        raise BayescaleError(f"{path}: is what is read; choose another path to write to")
    handle, name = _open_aside(path)
    os.close(handle)
    Path(name).unlink()


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block succeeds.

    Raises
    ------
    BayescaleError
        If the folder does not exist or cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link is written through, not replaced
    handle, name = _open_aside(path)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        # mkstemp makes the file private; the finished one gets the permissions of any new file.
        umask = os.umask(0)
        os.umask(umask)
        aside.chmod(0o666 & ~umask)
        try:
            os.replace(aside, path)
        except OSError as error:
            raise BayescaleError(
                f"{path}: cannot write here ({error.strerror}); choose another path"
            ) from error
    finally:
        aside.unlink(missing_ok=True)


def _open_aside(path: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise BayescaleError(
            f"{path}: cannot write here ({error.strerror}); choose a folder that exists and that you may "
            "write to"
        ) from error


def made_folder(path: str | Path) -> Path:
    """Return a folder, made if need be.

    Raises
    ------
    BayescaleError
        If it cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        other = "set BAYESCALE_CACHE to" if path.is_relative_to(cache_folder()) else "give"
        raise BayescaleError(f"{path}: cannot be made ({error.strerror}); {other} another folder") from error
    return path


def cache_folder() -> Path:
    """Return the folder for what can be made again: ``BAYESCALE_CACHE``, or the system's cache folder."""
    return Path(os.environ.get("BAYESCALE_CACHE") or user_cache_path("bayescale"))
