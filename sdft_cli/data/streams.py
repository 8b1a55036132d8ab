"""The content of a source file as a stream of bytes: unpacked, in UTF-8, without a byte-order mark.

gzip, zstd, bzip2 and xz are recognized by their first bytes, whatever the file is called, and unpacked piece by piece.
UTF-16 with a byte-order mark (Excel's "Unicode text", PowerShell) is converted; line ends of CR alone become line
feeds. Files that hold no rows (archives of several files, old Excel files, web pages, pointers of Git LFS, …) are
refused with what to do.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from sdft_cli.errors import UsageError

BOM = b"\xef\xbb\xbf"
HEAD = 1 << 16
_PIECE = 1 << 17
_ZSTD = b"\x28\xb5\x2f\xfd"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UNPACK = "unpack it, and give its folder or files: --source TASK=PATH"
_EXCEL = "save it as .xlsx or CSV (UTF-8)"
_EXPORT = "export its rows as JSONL, CSV or Parquet"
_AGAIN = "download the data file itself (on the hub: …/resolve/…, not …/blob/…)"
#: First bytes -> what such a file is, and what to do about it.
_REFUSED = (
    (b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x04\x22\x4d\x18", "packed by LZ4, which is not read", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls), or one with a password", _EXCEL),
    (b"SQLite format 3\0", "a SQLite database", _EXPORT),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
    (b"FEA1", "a Feather file of version 1", _EXPORT),
    (b"PARE", "an encrypted Parquet file", "decrypt it"),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"%PDF", "a PDF", "extract its text"),
    *((b"\x80" + bytes([n]), "a Python pickle, which may hold code and is not opened", _EXPORT) for n in range(2, 6)),
    (b"version https://git-lfs", "a pointer of Git LFS, not the data", "fetch the data: git lfs pull"),
    (b"<!doctype html", "a web page, not data", _AGAIN),
    (b"<html", "a web page, not data", _AGAIN),
    (b"<?xml", "an XML file", _EXPORT),
)


def kind_of(file: Path) -> str:
    """``parquet``, ``arrow``, ``xlsx`` or ``text``, by the content; `UsageError` for anything else."""
    with _read(file) as stream:
        head = stream.read(HEAD)
    packed = _packing(head) is not None
    if packed:
        with opened(file) as stream:
            head = stream.read(HEAD)
    kind = _kind(file, head)
    if packed and kind != "text":
        raise UsageError(f"{file} is a packed {kind} file", "unpack it first; such files are packed by themselves")
    return kind


def _kind(file: Path, head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        return _zipped(file)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    if head[257:262] == b"ustar":
        raise UsageError(f"{file} is a tar archive", _UNPACK)
    start = head[:200].removeprefix(BOM).lstrip().lower()
    for magic, what, hint in _REFUSED:
        if head.startswith(magic) or (magic.isascii() and magic[:1] == b"<" and start.startswith(magic)):
            raise UsageError(f"{file} is {what}", hint)
    if _packing(head):
        raise UsageError(f"{file} is packed twice", "unpack it first")
    if b"\0" in head and not head.startswith(_UTF16):
        raise UsageError(f"{file} is UTF-16 or not text at all", "save it as UTF-8")
    return "text"


def _zipped(file: Path) -> str:
    """``xlsx`` for a workbook; other ZIP archives are refused."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
            if "xl/workbook.xml" in names:
                return "xlsx"
            opendocument = "mimetype" in names and b"opendocument" in archive.read("mimetype")
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, zlib.error) as error:
        raise UsageError(
            f"{file} is a broken ZIP archive or Excel file: {error}", "download or save it again"
        ) from error
    if opendocument or "xl/workbook.bin" in names:
        raise UsageError(f"{file} is a spreadsheet in a format that is not read", _EXCEL)
    raise UsageError(f"{file} is a ZIP archive", _UNPACK)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The content of a text file. A broken archive raises `UsageError`, also in the midst of reading."""
    try:
        with _read(file) as raw:
            packing = _packing(raw.read(8))
            raw.seek(0)
            stream = cast(BinaryIO, io.BufferedReader(_unpacked(raw, packing), _PIECE)) if packing else raw
            yield _as_utf8(file, stream)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, _Broken) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"{file} is cut off or broken: {reason}", "download it again") from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}", "is it whole? download it again") from error


def is_packed(file: Path) -> bool:
    with _read(file) as raw:
        return _packing(raw.read(8)) is not None


def _read(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


# --- unpacking --------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """A broken zstd file."""


def _packing(head: bytes) -> str | None:
    """The name of the packer whose files begin with such bytes."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh") and head[4:7] == b"1AY":
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    skippable = head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5
    return "zstd" if head.startswith(_ZSTD) or skippable else None


def _unpacked(raw: BinaryIO, packing: str) -> io.RawIOBase:
    if packing == "zstd":
        return _Zstd(raw)
    unpacker = {"gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile}[packing]
    return cast(io.RawIOBase, unpacker(filename=raw) if packing != "gzip" else gzip.GzipFile(fileobj=raw))


class _Stream(io.RawIOBase):
    """A stream that is made piece by piece: `piece` returns the next bytes, none at the end."""

    _rest = b""

    def readable(self) -> bool:
        return True

    def piece(self) -> bytes:
        raise NotImplementedError

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # a writable buffer, which has no name in 3.11
        self._rest = self._rest or self.piece()
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _Zstd(_Stream):
    """The content of a zstd file of any number of frames. `zstandard`'s own reader takes one that is cut off for a
    whole one."""

    def __init__(self, raw: BinaryIO):
        import zstandard

        self._raw, self._error = raw, zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame, self._packed, self._inside = self._new(), b"", False

    def piece(self) -> bytes:
        while True:
            if not (packed := self._packed or self._raw.read(1 << 14)):
                if self._inside:
                    raise _Broken("it ends before its last frame does")
                return b""
            try:
                data, self._inside = self._frame.decompress(packed), True
            except self._error as error:
                raise _Broken(str(error)) from error
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame, self._inside = self._frame.unused_data, self._new(), False
            if data:
                return data


# --- text -------------------------------------------------------------------------------------------------------------


def _as_utf8(file: Path, stream: BinaryIO) -> BinaryIO:
    """``stream`` from its first character on, converted where it is UTF-16 or has line ends of CR alone."""
    buffered = stream if hasattr(stream, "peek") else cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream)))
    head = cast(io.BufferedReader, buffered).peek(HEAD)[:HEAD]
    if head.startswith(_UTF16):
        buffered = cast(BinaryIO, io.BufferedReader(_Utf16(file, buffered), _PIECE))
        head = cast(io.BufferedReader, buffered).peek(HEAD)[:HEAD]
    if head.startswith(BOM):
        buffered.read(len(BOM))
        head = head[len(BOM) :]
    if b"\r" in head and b"\n" not in head and len(head.rstrip(b"\r").split(b"\r", 1)) > 1:
        return cast(BinaryIO, io.BufferedReader(_LineFeeds(buffered), _PIECE))
    return buffered


class _Utf16(_Stream):
    def __init__(self, file: Path, stream: BinaryIO):
        self._file, self._stream = file, stream
        self._decoder = codecs.getincrementaldecoder("utf-16")()

    def piece(self) -> bytes:
        text = ""
        while not text:
            raw = self._stream.read(_PIECE)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise UsageError(f"{self._file} is broken UTF-16: {error.reason}", "save it as UTF-8") from error
            if not raw:
                break
        return text.encode("utf-8", "surrogatepass")


class _LineFeeds(_Stream):
    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def piece(self) -> bytes:
        return self._stream.read(_PIECE).replace(b"\r", b"\n")
