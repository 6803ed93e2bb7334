"""Files from the web, kept in a folder: the part of `torch.hub` that needs no repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from typing import Any
from urllib.parse import urlparse
from urllib.request import urlopen

__all__ = ["download_url_to_file", "get_dir", "load_state_dict_from_url", "set_dir"]

HASH_REGEX = re.compile(r"-([a-f0-9]*)\.")


class _Folder:
    path: str | None = None


def get_dir() -> str:
    """Return the folder that files are kept in: `set_dir`'s, or `TORCH_HOME/hub`."""
    if _Folder.path is not None:
        return _Folder.path
    cache = os.environ.get("XDG_CACHE_HOME", os.path.join("~", ".cache"))
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return os.path.join(os.path.expanduser(home), "hub")


def set_dir(d: Any) -> None:
    """Set the folder that files are kept in."""
    _Folder.path = os.path.expanduser(d)


def download_url_to_file(
    url: str, dst: str, hash_prefix: str | None = None, progress: bool = True
) -> None:
    """Copy a file from the web to `dst`; nothing is left there if that fails.

    Raises:
        RuntimeError: its SHA-256 does not begin with `hash_prefix`.
    """
    folder = os.path.dirname(os.path.abspath(dst))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        part = os.path.join(beside, "part")
        with urlopen(url) as source, open(part, "wb") as target:
            shutil.copyfileobj(source, target)
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if hash_prefix and not found.startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{found}")')
        os.replace(part, dst)


def load_state_dict_from_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True,
    check_hash: bool = False, file_name: str | None = None, weights_only: bool = False,
) -> Any:  # fmt: skip
    """Return `tracegraph.load` of a file from the web, which is fetched once and kept.

    Raises:
        RuntimeError: `check_hash`, and the file is not the one that its name says.
        TraceGraphError: it is no file that tracegraph has written.
    """
    from tracegraph.files.archive import load

    folder = model_dir or os.path.join(get_dir(), "checkpoints")
    name = file_name or os.path.basename(urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        match = HASH_REGEX.search(name) if check_hash else None
        download_url_to_file(url, path, match.group(1) if match else None, progress)
    return load(path, map_location=map_location)
