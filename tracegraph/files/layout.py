"""The byte layout of `model.tg`: how its zip headers are encoded, and the check of a whole file.

    local header, name, [zip64 field], padding field, data      for each member, sorted by name
    central directory, [zip64 end record and locator], end-of-central-directory record

One list of members has exactly one encoding. The check relies on that: it takes from a file only
what it cannot know (names, sizes, checksums), encodes all headers anew and demands the same bytes.
So every byte of a file is covered by this comparison, by a CRC-32 or by a SHA-256.
"""

from __future__ import annotations

import itertools
import json
import re
import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO, Final, NamedTuple, NoReturn

from tracegraph.errors import FileFormatError

ALIGNMENT: Final = 64
MANIFEST_NAME: Final = "manifest.json"

_PADDING_ID: Final = 0x6774  # "tg", little-endian
_MAX_16 = 0xFFFE  # larger counts, sizes and offsets go into zip64 fields; tests lower these two
_MAX_32 = 0xFFFFFFFE
_SENTINEL_16: Final = 0xFFFF
_SENTINEL_32: Final = 0xFFFFFFFF
_UTF8_FLAG: Final = 0x0800
_DATE_1980_01_01: Final = 0x0021
_CREATOR_UNIX: Final = 3 << 8
_MODE_0644: Final = 0o100644 << 16
COPY_REMEDY: Final = "save it again, or fetch an intact copy"


class Limits(NamedTuple):
    """What a reader accepts at most; `max_members` does not count the manifest."""

    max_members: int = 100_000
    max_name_bytes: int = 1024
    max_file_bytes: int = 1 << 40
    max_json_bytes: int = 1 << 30
    max_json_depth: int = 64


DEFAULT_LIMITS: Final = Limits()


class _Record:
    """The fixed part of a zip header: its layout and the names of its fields."""

    def __init__(self, layout: str, labels: str) -> None:
        self.struct = struct.Struct(layout)
        self.labels = labels.split(", ")

    def difference(self, actual: bytes, expected: bytes) -> str:
        """Say in which field two headers differ first."""
        if min(len(actual), len(expected)) >= self.struct.size:
            fields = zip(
                self.labels,
                self.struct.unpack_from(actual),
                self.struct.unpack_from(expected),
                strict=True,
            )
            for label, have, want in fields:
                if have != want:
                    return f"the field {label!r} holds {have!r} where {want!r} belongs"
        return "the name, extra field or padding is not what tracegraph writes"


_FILE_FIELDS: Final = (
    "flags, method, time, date, CRC-32, compressed size, size, name length, extra length"
)
_LOCAL: Final = _Record("<4sHHHHHIIIHH", "signature, version needed, " + _FILE_FIELDS)
_CENTRAL: Final = _Record(
    "<4sHHHHHHIIIHHHHHII",
    f"signature, creator, version needed, {_FILE_FIELDS}, comment length, disk, "
    "internal attributes, external attributes, header offset",
)
_END_FIELDS: Final = (
    "signature, disk, directory disk, members on disk, members, directory size, "
    "directory offset, comment length"
)
_END: Final = _Record("<4sHHHHIIH", _END_FIELDS)
_WIDE_END: Final = _Record(
    "<4sQHHIIQQQQ4sIQI4sHHHHIIH",
    "zip64 signature, zip64 record size, zip64 creator, zip64 version needed, zip64 disk, "
    "zip64 directory disk, zip64 members on disk, zip64 members, zip64 directory size, "
    "zip64 directory offset, locator signature, locator disk, locator offset, locator disks, "
    + _END_FIELDS,
)


class Entry(NamedTuple):
    """One member: all that its two headers are made of."""

    name: str
    size_bytes: int
    crc32: int
    header_offset: int

    def _common_fields(self) -> tuple[int, ...]:
        wide = max(self.size_bytes, self.header_offset) > _MAX_32
        size = _SENTINEL_32 if self.size_bytes > _MAX_32 else self.size_bytes
        version = 45 if wide else 20
        return (version, _UTF8_FLAG, 0, 0, _DATE_1980_01_01, self.crc32, size, size)

    def _wide_sizes(self) -> list[int]:
        return [self.size_bytes] * 2 if self.size_bytes > _MAX_32 else []

    def local_header(self) -> bytes:
        """Encode the header that precedes the data, padded so that the data are aligned."""
        name = self.name.encode()
        extra = _zip64_field(self._wide_sizes())
        unpadded = self.header_offset + _LOCAL.struct.size + len(name) + len(extra) + 4
        padding = -unpadded % ALIGNMENT
        extra += struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
        fields = (*self._common_fields(), len(name), len(extra))
        return _LOCAL.struct.pack(b"PK\3\4", *fields) + name + extra

    def central_header(self) -> bytes:
        """Encode the entry of the central directory."""
        name = self.name.encode()
        wide_offset = self.header_offset > _MAX_32
        extra = _zip64_field(self._wide_sizes() + [self.header_offset] * wide_offset)
        offset = _SENTINEL_32 if wide_offset else self.header_offset
        common = self._common_fields()
        fields = (_CREATOR_UNIX | common[0], *common, len(name), len(extra))
        return _CENTRAL.struct.pack(b"PK\1\2", *fields, 0, 0, 0, _MODE_0644, offset) + name + extra


def _zip64_field(values: list[int]) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def encode_end(count: int, size: int, offset: int) -> bytes:
    """Encode all that follows the central directory."""
    short_count = _SENTINEL_16 if count > _MAX_16 else count
    short_size = _SENTINEL_32 if size > _MAX_32 else size
    short_offset = _SENTINEL_32 if offset > _MAX_32 else offset
    end = (b"PK\5\6", 0, 0, short_count, short_count, short_size, short_offset, 0)
    if count <= _MAX_16 and max(size, offset) <= _MAX_32:
        return _END.struct.pack(*end)
    wide = (b"PK\6\6", 44, _CREATOR_UNIX | 45, 45, 0, 0, count, count, size, offset)
    return _WIDE_END.struct.pack(*wide, b"PK\6\7", 0, offset + size, 1, *end)


def encode_manifest(entries: Iterable[tuple[str, int, str]]) -> bytes:
    """Encode (name, size, SHA-256) triples, already sorted, as canonical JSON."""
    items = ",".join(
        f'{_json_string(name)}:{{"sha256":"{digest}","size_bytes":{size}}}'
        for name, size, digest in entries
    )
    return f'{{"members":{{{items}}}}}'.encode()


_json_string: Final = json.JSONEncoder(ensure_ascii=False).encode


def name_problem(name: str, earlier: set[str], limits: Limits) -> str:
    """Say what is wrong with a member's name, given those before it in sorted order; or ""."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    parts = name.split("/")
    if len(encoded) > limits.max_name_bytes:
        return f"is longer than {limits.max_name_bytes} bytes"
    if "" in parts or "." in parts or ".." in parts or re.match("[A-Za-z]:", name):
        return "is not a plain relative path"
    if re.search(r"[\x00-\x1f\x7f-\x9f\\]", name):
        return "has a backslash or a control character"
    if name in earlier:
        return "appears twice"
    parents = itertools.accumulate(parts[:-1], "{}/{}".format)
    if any(parent in earlier for parent in parents):
        return "lies below another member, as if that were a folder"
    return ""


def quote(name: str) -> str:
    """Show a member's name in an error, in ASCII and not too long."""
    return ascii(name if len(name) <= 80 else name[:80] + "...")


def format_error(label: str, problem: str, remedy: str = COPY_REMEDY) -> FileFormatError:
    """Make the error of one sentence: the file, what is wrong and where, the remedy."""
    return FileFormatError(f"{label}: {problem}; {remedy}")


_FOREIGN: Final = (
    (rb"\x80[\x02-\x05]", "a Python pickle (which is never loaded: it could run any code)"),
    (rb"PK\x03\x04.{2}(\x08\x08\0{6}|(?!\0\x08).{24}[^/\0]+/data\.pkl)", "a PyTorch archive"),
    (rb"PK\x03\x04.{2}(?!\0\x08).{24}[^\0]+\.npy", "a NumPy .npz archive"),
    (rb"PK\x03\x04.{2}(?!\0\x08).{6}(?!\x21\0)", "a zip file of another program"),
    (rb"PK\x05\x06", "an empty zip file"),
    (rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", "an ONNX model"),
    (rb".{6}\0\0\{\"", "a safetensors file"),
    (rb"\x93NUMPY", "a NumPy .npy file"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"GGUF", "a GGUF file"),
    (rb"\x1f\x8b", "a gzip file"),
    (rb"version https://git-lfs", "a Git LFS pointer, without the file it stands for"),
    (rb"\s*<(!DOCTYPE|\?xml|html)", "a web page or XML, perhaps of a failed download"),
    (rb"\0+\Z", "a run of zero bytes, perhaps of a save or copy that never finished"),
)


class LayoutReader:
    """Reads and checks all of a file but its members' data, from the file's present position.

    Attributes: `label` (what errors call the file), `size` (from that position to the end).
    """

    def __init__(self, file: BinaryIO, label: str, limits: Limits) -> None:
        self.label = label
        self.limits = limits
        self._file = file
        self._start = file.tell()
        self.size = file.seek(0, 2) - self._start

    def fail(self, problem: str, remedy: str = COPY_REMEDY) -> NoReturn:
        """Raise the error of one sentence.

        Raises:
            FileFormatError: always.
        """
        raise format_error(self.label, problem, remedy)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            FileFormatError: The file ends before.
            TypeError: The file object is open in text mode.
        """
        self._file.seek(self._start + offset)
        data = self._file.read(length)
        if not isinstance(data, bytes):
            raise TypeError(f"{self.label}: the file object must be open in binary mode")
        while len(data) < length:
            more = self._file.read(length - len(data))
            if not more:
                self.fail(f"it ended at byte {offset + len(data)} while it was being read")
            data += more
        return data

    def check(self) -> tuple[list[Entry], dict[str, str]]:
        """Check the structure; return the members in their order and the SHA-256 of each by name.

        Raises:
            FileFormatError: The file is not exactly what tracegraph writes, or beyond the limits.
        """
        if self.size == 0:
            where = (
                f" from byte {self._start}, where the file object stands," if self._start else ""
            )
            self.fail(f"the file is empty{where} and so not a tracegraph file")
        if self.size > self.limits.max_file_bytes:
            self._fail_limit(f"it has {self.size} bytes", "max_file_bytes")
        head = self.read_at(0, min(self.size, 512))
        try:
            entries = self._read_directory(*self._read_end())
            return entries, self._read_manifest(entries)
        except FileFormatError:
            for pattern, description in _FOREIGN:
                if re.match(pattern, head, re.DOTALL):
                    problem = f"this is not a tracegraph file but seems to be {description}"
                    remedy = "pass a file that tracegraph saved, or fetch it again"
                    raise format_error(self.label, problem, remedy) from None
            raise

    def _fail_limit(self, problem: str, limit: str) -> NoReturn:
        allowed = f"more than Limits.{limit}={getattr(self.limits, limit)}"
        self.fail(f"{problem}, {allowed}", "raise that limit if you trust the file")

    def _expect(self, actual: bytes, expected: bytes, record: _Record, what: str, at: int) -> None:
        """Demand that a header is exactly as expected."""
        if actual != expected:
            pairs = enumerate(zip(actual, expected, strict=False))
            shorter = min(len(actual), len(expected))
            first = next((index for index, (have, want) in pairs if have != want), shorter)
            difference = record.difference(actual, expected)
            self.fail(f"{what} is damaged at byte {at + first}: {difference}")

    def _read_end(self) -> tuple[int, int, int]:
        """Check the records at the end; return the count, size and offset of the directory."""
        wide_size = _WIDE_END.struct.size
        tail = self.read_at(max(0, self.size - wide_size), min(self.size, wide_size))
        end = tail[-_END.struct.size :]
        if len(end) < _END.struct.size or not end.startswith(b"PK\5\6"):
            self.fail(
                "it does not end as a tracegraph file does: it is cut off, has bytes appended or "
                f"is of another format (no end-of-central-directory record before byte {self.size})"
            )
        count, size, offset = _END.struct.unpack(end)[4:7]
        wide = count == _SENTINEL_16 or _SENTINEL_32 in (size, offset)
        if wide and len(tail) == wide_size:
            count, size, offset = _WIDE_END.struct.unpack(tail)[7:10]
        expected_size = wide_size if wide else _END.struct.size
        if offset + size + expected_size != self.size:
            self.fail(
                f"its end record (byte {self.size - _END.struct.size}) tells of a directory of "
                f"{size} bytes at byte {offset}, which does not fit the file's {self.size} bytes"
            )
        expected = encode_end(count, size, offset)
        self._expect(
            tail[-expected_size:],
            expected,
            _WIDE_END if wide else _END,
            "its end record",
            offset + size,
        )
        if count - 1 > self.limits.max_members:
            self._fail_limit(f"it declares {count - 1} members", "max_members")
        least = _CENTRAL.struct.size
        most = least + self.limits.max_name_bytes + 28
        if count < 1 or not count * least <= size <= count * most:
            self.fail(f"its central directory of {size} bytes cannot be that of {count} members")
        return count, size, offset

    def _read_directory(self, count: int, size: int, directory_offset: int) -> list[Entry]:
        """Check the central directory and every local header."""
        directory = self.read_at(directory_offset, size)
        entries: list[Entry] = []
        names: set[str] = set()
        position = offset = 0
        for _ in range(count):
            at = directory_offset + position
            entry, position = self._read_central(directory, position, offset, at)
            problem = name_problem(entry.name, names, self.limits)
            if not problem and entries and entry.name < entries[-1].name:
                problem = f"comes after {quote(entries[-1].name)}, out of order"
            if problem:
                self.fail(f"the member name {quote(entry.name)} (byte {at}) {problem}")
            header = entry.local_header()
            end = offset + len(header) + entry.size_bytes
            if end > directory_offset:
                room = f"past the start of the central directory at byte {directory_offset}"
                self.fail(f"member {quote(entry.name)} would end at byte {end}, {room}")
            what = f"the local header of member {quote(entry.name)}"
            self._expect(self.read_at(offset, len(header)), header, _LOCAL, what, offset)
            entries.append(entry)
            names.add(entry.name)
            offset = end
        if position != size or offset != directory_offset:
            self.fail(f"there are stray bytes at byte {min(offset, directory_offset + position)}")
        return entries

    def _read_central(
        self, directory: bytes, position: int, offset: int, at: int
    ) -> tuple[Entry, int]:
        """Read one entry, of the member that must begin at `offset`; return the next position."""
        fixed = _CENTRAL.struct.size
        if len(directory) - position < fixed:
            self.fail(f"its central directory is cut off at byte {at}")
        fields = _CENTRAL.struct.unpack_from(directory, position)
        crc32, short_size, name_length, extra_length = (fields[7], *fields[9:12])
        name_end = position + fixed + name_length
        extra = directory[name_end : name_end + extra_length]
        try:
            name = directory[position + fixed : name_end].decode()
        except UnicodeDecodeError:
            self.fail(f"a member name in its central directory (byte {at}) is not UTF-8")
        size = int.from_bytes(extra[4:12], "little") if short_size == _SENTINEL_32 else short_size
        entry = Entry(name, size, crc32, offset)
        expected = entry.central_header()
        what = f"the central directory's entry of member {quote(name)}"
        next_position = name_end + extra_length
        self._expect(directory[position:next_position], expected, _CENTRAL, what, at)
        return entry, next_position

    def _read_manifest(self, entries: list[Entry]) -> dict[str, str]:
        """Check the manifest; return the SHA-256 that it tells of each member."""
        manifest = next((entry for entry in entries if entry.name == MANIFEST_NAME), None)
        others = [entry for entry in entries if entry.name != MANIFEST_NAME]
        blank = encode_manifest((entry.name, entry.size_bytes, "0" * 64) for entry in others)
        if manifest is None or manifest.size_bytes != len(blank):
            self.fail(f"its member {MANIFEST_NAME!r} is missing or not a list of its members")
        at = manifest.header_offset + len(manifest.local_header())
        data = self.read_at(at, manifest.size_bytes)
        found = re.findall(rb'"sha256":"([0-9a-f]{64})"', data)
        digests = {e.name: digest.decode() for e, digest in zip(others, found, strict=False)}
        triples = ((e.name, e.size_bytes, digests.get(e.name, "")) for e in others)
        if data != encode_manifest(triples) or zlib.crc32(data) != manifest.crc32:
            self.fail(f"its member {MANIFEST_NAME!r} (byte {at}) is damaged")
        return digests
