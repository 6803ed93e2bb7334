"""The container of `model.tg`: a reproducible zip file of stored, aligned, checksummed members.

`write_container` writes it, whole or not at all. `Container` maps it after checking its structure,
which `tracegraph.files.layout` describes; `Container.verify` and `read_json` check the data.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Self, TypeAlias

import numpy as np

from tracegraph.files.layout import (
    ALIGNMENT,
    DEFAULT_LIMITS,
    MANIFEST_NAME,
    Entry,
    LayoutReader,
    Limits,
    encode_end,
    encode_manifest,
    format_error,
    name_problem,
    quote,
)
from tracegraph.files.strict_json import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    Data: TypeAlias = Buffer | NDArray[Any]  # NumPy's stubs call arrays buffers from 3.12 on only
    Member: TypeAlias = Data | Sequence[Data]

__all__ = [
    "ALIGNMENT",
    "DEFAULT_LIMITS",
    "MANIFEST_NAME",
    "Container",
    "Limits",
    "read_json",
    "write_container",
]

_CHUNK_BYTES: Final = 1 << 20


class _Fingerprint(NamedTuple):
    size_bytes: int
    crc32: int
    sha256: str


def _fingerprint(chunks: Iterable[bytes | memoryview]) -> _Fingerprint:
    size_bytes = crc32 = 0
    sha256 = hashlib.sha256()
    for chunk in chunks:
        size_bytes += len(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        sha256.update(chunk)
    return _Fingerprint(size_bytes, crc32, sha256.hexdigest())


def write_container(path: str | os.PathLike[str] | BinaryIO, members: Mapping[str, Member]) -> None:
    """Write members, and a manifest of their sizes and SHA-256; the same members, the same bytes.

    At a path the file appears whole or not at all: a failure leaves what was there before, and no
    temporary file. To a file object the bytes are just written, from its present position. Each
    member is looked up and read twice, in chunks, so a mapping or sequence may load it lazily.

    Args:
        path: Where to save; a symbolic link is followed. Or a binary file object.
        members: By name, a C-contiguous buffer or a sequence of such, to be laid end to end.

    Raises:
        TypeError: A name, a member or `path` is not of the types above.
        ValueError: A name is not allowed, a buffer is not C-contiguous, the members are beyond
            `DEFAULT_LIMITS`, or `path` is a device or the like.
        RuntimeError: A member changed while it was being saved.
        OSError: The file system refused.
    """
    if not isinstance(path, str | os.PathLike) and not hasattr(path, "write"):
        raise TypeError(f"expected a path or a binary file object, not {type(path).__name__}")
    names = _checked_names(members)
    fingerprints = {name: _fingerprint(_chunks(name, members[name])) for name in names}
    manifest = encode_manifest((name, p.size_bytes, p.sha256) for name, p in fingerprints.items())
    fingerprints[MANIFEST_NAME] = _fingerprint([manifest])
    entries: list[Entry] = []
    offset = 0
    for name in sorted(fingerprints):
        entry = Entry(name, fingerprints[name].size_bytes, fingerprints[name].crc32, offset)
        offset += len(entry.local_header()) + entry.size_bytes
        entries.append(entry)
    if offset > DEFAULT_LIMITS.max_file_bytes:
        raise ValueError(f"the members take {offset} bytes, more than a container may have")

    def chunks_of(name: str) -> Iterable[bytes]:
        return [manifest] if name == MANIFEST_NAME else _chunks(name, members[name])

    if isinstance(path, str | os.PathLike):
        with _atomic_file(path) as file:
            _write_file(file, entries, chunks_of)
    else:
        _write_file(path, entries, chunks_of)


def _checked_names(members: Mapping[str, object]) -> list[str]:
    """Return the names in order, having checked that they and the manifest's can be members."""
    for name in members:
        if not isinstance(name, str):
            raise TypeError(f"a member's name must be a str, not {type(name).__name__}")
    names = sorted(members)
    if MANIFEST_NAME in members:
        raise ValueError(f"the member {MANIFEST_NAME!r} is written by write_container itself")
    if len(names) > DEFAULT_LIMITS.max_members:
        raise ValueError(f"{len(names)} members, more than a container may have")
    earlier: set[str] = set()
    for name in sorted([*names, MANIFEST_NAME]):
        problem = name_problem(name, earlier, DEFAULT_LIMITS)
        if problem:
            raise ValueError(f"the member name {quote(name)} {problem}")
        earlier.add(name)
    return names


def _chunks(name: str, member: Member) -> Iterator[bytes]:
    """Copy a member chunk by chunk, so that what is hashed is what is written."""
    for part in _parts(name, member):
        array = np.asarray(part if isinstance(part, np.ndarray) else memoryview(part))
        if not array.flags.c_contiguous:
            raise ValueError(f"a buffer of member {quote(name)} is not C-contiguous; copy it first")
        flat = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(flat), _CHUNK_BYTES):
            yield bytes(flat[start : start + _CHUNK_BYTES])


def _parts(name: str, member: Any) -> Sequence[Data]:
    if isinstance(member, np.ndarray):
        return [member]  # also of dtypes that the buffer protocol cannot express
    try:
        return [memoryview(member)]
    except TypeError:
        if isinstance(member, Sequence) and not isinstance(member, str):
            return member
        kind = type(member).__name__
        problem = f"member {quote(name)} must be a buffer or a sequence of buffers, not {kind}"
        raise TypeError(problem) from None


def _write_file(
    file: BinaryIO, entries: Sequence[Entry], chunks_of: Callable[[str], Iterable[bytes]]
) -> None:
    for entry in entries:
        _write_fully(file, entry.local_header())
        size_bytes = crc32 = 0
        for chunk in chunks_of(entry.name):
            _write_fully(file, chunk)
            size_bytes += len(chunk)
            crc32 = zlib.crc32(chunk, crc32)
        if (size_bytes, crc32) != (entry.size_bytes, entry.crc32):
            raise RuntimeError(f"member {quote(entry.name)} changed while it was being saved")
    directory = b"".join(entry.central_header() for entry in entries)
    last = entries[-1]
    offset = last.header_offset + len(last.local_header()) + last.size_bytes
    _write_fully(file, directory + encode_end(len(entries), len(directory), offset))


def _write_fully(file: BinaryIO, data: bytes) -> None:
    while data:
        written: int | None = file.write(data)
        if written is None and not isinstance(file, io.RawIOBase):
            return  # a file-like object that does not count
        if not written:
            raise BlockingIOError(errno.EAGAIN, "the file object takes no more bytes")
        data = data[written:]


@contextlib.contextmanager
def _atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` if the block ends well, and else is removed."""
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"{os.fspath(path)} is not a regular file; open it and pass the object")
    directory = os.path.dirname(target)
    temporary = os.path.join(directory, f".tracegraph-{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename = os.fspath(path)
        raise
    _sync_directory(directory)


def _sync_directory(directory: str) -> None:
    """Make a renaming durable, where the directory can be opened and synchronised at all."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


class Container:
    """A container opened for reading: its structure is checked, its members' data are not yet.

    Any number of threads may use it. The file must not be written to while it is open, but may be
    replaced or removed, as `write_container` does.

    Attributes: `label` (what errors call the file).
    """

    def __init__(
        self, label: str, view: memoryview, entries: Sequence[Entry], digests: Mapping[str, str]
    ) -> None:
        self.label = label
        self._view: memoryview | None = view
        self._entries = {entry.name: entry for entry in entries}
        self._digests = digests

    @classmethod
    def open(
        cls, path_or_file: str | os.PathLike[str] | BinaryIO, limits: Limits = DEFAULT_LIMITS
    ) -> Self:
        """Check all of a file but the data of its members, then map it.

        A file object is read from its present position to its end, into memory, and stays open.

        Raises:
            FileFormatError: The file is not exactly what `write_container` writes, or is beyond
                `limits`.
            OSError: It is missing, a directory, not readable or (a file object) not seekable.
            TypeError: `path_or_file` is neither a path nor a file object in binary mode.
        """
        if isinstance(path_or_file, str | os.PathLike):
            return cls._open_path(os.fspath(path_or_file), limits)
        if not hasattr(path_or_file, "seek"):
            kind = type(path_or_file).__name__
            raise TypeError(f"expected a path or a binary file object, not {kind}")
        name = getattr(path_or_file, "name", None)
        label = name if isinstance(name, str) else "the file object"
        reader = LayoutReader(path_or_file, label, limits)
        entries, digests = reader.check()
        memory = mmap.mmap(-1, reader.size)  # begins at a page, so that members are aligned
        for start in range(0, reader.size, _CHUNK_BYTES):
            block = reader.read_at(start, min(_CHUNK_BYTES, reader.size - start))
            memory[start : start + len(block)] = block
        return cls(label, memoryview(memory).toreadonly(), entries, digests)

    @classmethod
    def _open_path(cls, path: str, limits: Limits) -> Self:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            remedy = "copy it to a regular file, or pass its bytes as io.BytesIO"
            raise format_error(path, "this is not a regular file", remedy)
        with open(path, "rb", buffering=0) as file:
            reader = LayoutReader(file, path, limits)
            entries, digests = reader.check()
            try:
                memory = mmap.mmap(file.fileno(), reader.size, access=mmap.ACCESS_READ)
            except ValueError:
                reader.fail("it was cut off while it was being opened")
        return cls(path, memoryview(memory), entries, digests)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; views that were read stay valid, and keep the mapping alive."""
        self._view = None

    def names(self) -> list[str]:
        """Return the members' names in order, without the manifest's."""
        return list(self._digests)

    def size_bytes(self, name: str) -> int:
        """Return a member's size.

        Raises:
            FileFormatError: There is no such member.
        """
        return self._entry(name).size_bytes

    def read(self, name: str) -> memoryview:
        """Return a member's data, not verified: a read-only view that begins at 64 bytes.

        Raises:
            FileFormatError: There is no such member.
            ValueError: The container is closed.
        """
        view = self._view
        if view is None:
            raise ValueError(f"{self.label}: the container is closed")
        entry = self._entry(name)
        start = entry.header_offset + len(entry.local_header())
        return view[start : start + entry.size_bytes]

    def verify(self, name: str | None = None) -> None:
        """Check the CRC-32 and SHA-256 of one member, or of all.

        Raises:
            FileFormatError: A member is damaged, or there is no such member.
            ValueError: The container is closed.
        """
        for each in self._entries if name is None else [name]:
            self._check(each, self.read(each))

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise format_error(self.label, f"it has no member {quote(name)}")
        return entry

    def _check(self, name: str, data: bytes | memoryview) -> None:
        pieces = range(0, len(data), _CHUNK_BYTES)
        actual = _fingerprint(data[start : start + _CHUNK_BYTES] for start in pieces)
        entry = self._entry(name)
        sha256 = self._digests.get(name, actual.sha256)  # the manifest has only a CRC-32
        if actual != (entry.size_bytes, entry.crc32, sha256):
            start = entry.header_offset + len(entry.local_header())
            where = f"bytes {start} to {start + entry.size_bytes}"
            problem = f"member {quote(name)} is damaged: its data ({where}) fail their checksums"
            raise format_error(self.label, problem)


def read_json(container: Container, name: str, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Read a member that holds JSON, verified and strict.

    Args:
        container: The container to read from.
        name: The member.
        limits: Of these, `max_json_bytes` and `max_json_depth` count.

    Returns:
        What `json.loads` makes of it.

    Raises:
        FileFormatError: The member is missing, damaged, beyond the limits, or not JSON as
            `tracegraph.files.strict_json` demands it.
        ValueError: The container is closed.
    """
    if container.size_bytes(name) > limits.max_json_bytes:
        problem = (
            f"member {quote(name)} has more than Limits.max_json_bytes={limits.max_json_bytes}"
        )
        raise format_error(container.label, problem, "raise that limit if you trust the file")
    data = bytes(container.read(name))
    container._check(name, data)
    try:
        return parse_json(data, limits.max_json_depth)
    except (ValueError, RecursionError) as error:
        problem = f"member {quote(name)} is not JSON as tracegraph writes it: {error}"
    raise format_error(container.label, problem)
