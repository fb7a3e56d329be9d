"""The decoders and decompressors that a packed script may use, each bounded before it allocates.

All take and return bytes. ``DECODERS`` maps the dotted name a script uses to a function
``(budget, positional arguments, keyword arguments) -> bytes``. Bad data raises :class:`DecodeError`, reaching
a bound raises :class:`auditor.unpack.limits.LimitError`; nothing else escapes.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import brotli
import zstandard

from auditor.unpack.limits import Budget

CHUNK = 1 << 20
MAX_BASE85 = 8 << 20
"""base85 is decoded by pure Python up to 3.14: more than this many characters would not end in time."""
MAX_DICTIONARY = 256 << 20
"""A longer LZMA dictionary or zstd window is refused: it is allocated before the first byte comes out."""

Decoder = Callable[[Budget, Sequence[Any], Mapping[str, Any]], bytes]


class DecodeError(Exception):
    """The data is not what the decoder reads, or it was asked for something that is not supported."""


def _drain(budget: Budget, read: Callable[[], bytes]) -> bytes:
    """All that ``read`` gives, chunk by chunk, counted as it comes."""
    parts = bytearray()
    while chunk := read():
        budget.produce(len(chunk))
        budget.check_time()
        parts += chunk
    return bytes(parts)


def inflate(budget: Budget, data: bytes, wbits: int = zlib.MAX_WBITS, members: bool = False) -> bytes:
    """DEFLATE data: zlib (``wbits`` 15), raw (-15), gzip (31; several ``members`` in a row are joined)."""
    out = bytearray()
    while data:
        machine = zlib.decompressobj(wbits)
        pending = data
        while not machine.eof:
            chunk = machine.decompress(pending, CHUNK)
            pending = machine.unconsumed_tail
            if not chunk and not pending and not machine.eof:
                raise DecodeError("the data ends too early")
            budget.produce(len(chunk))
            budget.check_time()
            out += chunk
        data = machine.unused_data.lstrip(b"\0") if members else b""
    return bytes(out)


def _streams(budget: Budget, data: bytes, machine_for: Callable[[], Any]) -> bytes:
    """bz2 or lzma data of one or more streams; junk may follow the first stream, as in the stdlib."""
    out = bytearray()
    first = True
    while data:
        machine = machine_for()
        pending = data
        try:
            while not machine.eof:
                chunk = machine.decompress(pending, CHUNK)
                pending = b""
                if not chunk and machine.needs_input and not machine.eof:
                    raise DecodeError("the data ends too early")
                budget.produce(len(chunk))
                budget.check_time()
                out += chunk
        except (OSError, lzma.LZMAError):
            if first:
                raise
            break
        data = machine.unused_data
        first = False
    return bytes(out)


def _filters(filters: Any) -> list[dict[str, Any]] | None:
    if filters is None:
        return None
    checked = [dict(f) for f in filters]
    for entry in checked:
        if entry.get("dict_size", 0) > MAX_DICTIONARY:
            raise DecodeError(f"an LZMA dictionary of {entry['dict_size']} bytes")
    return checked


def unlzma(budget: Budget, data: bytes, format: int = lzma.FORMAT_AUTO, filters: Any = None) -> bytes:
    """xz, legacy .lzma or raw LZMA data."""
    limit = None if format == lzma.FORMAT_RAW else MAX_DICTIONARY
    checked = _filters(filters)
    return _streams(budget, data, lambda: lzma.LZMADecompressor(format=format, memlimit=limit, filters=checked))


def unbz2(budget: Budget, data: bytes) -> bytes:
    """bzip2 data."""
    return _streams(budget, data, bz2.BZ2Decompressor)


def unbrotli(budget: Budget, data: bytes) -> bytes:
    """Brotli data."""
    machine = brotli.Decompressor()
    out = bytearray()
    if hasattr(machine, "can_accept_more_data"):
        pieces: list[bytes] = [data]
        options = {"output_buffer_limit": CHUNK}
    else:
        # Before brotli 1.2 output can't be limited; one input byte can't start more than one 16 MiB block.
        pieces = [data[i : i + 1] for i in range(len(data))]
        options = {}
    for piece in pieces:
        chunk = machine.process(piece, **options)
        while True:
            budget.produce(len(chunk))
            budget.check_time()
            out += chunk
            if not options or machine.is_finished() or not chunk:
                break
            chunk = machine.process(b"", **options)
    if not machine.is_finished():
        raise DecodeError("the data ends too early")
    return bytes(out)


def unzstd(budget: Budget, data: bytes) -> bytes:
    """Zstandard data of one or more frames."""
    machine = zstandard.ZstdDecompressor(max_window_size=MAX_DICTIONARY)
    with machine.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        out = _drain(budget, lambda: reader.read(CHUNK))
    if len(out) < max(1, zstandard.frame_content_size(data)):
        raise DecodeError("the data ends too early")
    return out


_Z85 = bytes.maketrans(
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
)


def _z85(data: bytes | str) -> bytes:
    raw = data.encode("ascii") if isinstance(data, str) else bytes(data)
    return base64.b85decode(raw.translate(_Z85))


def _text_decoder(function: Callable[..., bytes], limit: int | None = None) -> Decoder:
    """A base-N decoder of the standard library, its input bounded and its output counted."""

    def decode(budget: Budget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        size = len(args[0] if args else next(iter(kwargs.values())))
        budget.allow(size)
        if limit is not None and size > limit:
            raise DecodeError(f"{size:,} characters of base85")
        out = function(*args, **kwargs)
        budget.produce(len(out))
        budget.check_time()
        return out

    return decode


def _bytes_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    data = args[0] if args else kwargs.get("data", kwargs.get("string"))
    if not isinstance(data, bytes | bytearray):
        raise DecodeError(f"{type(data).__name__} in place of bytes")
    return bytes(data)


def _zlib(budget: Budget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    wbits = args[1] if len(args) > 1 else kwargs.get("wbits", zlib.MAX_WBITS)
    return inflate(budget, _bytes_of(args, kwargs), wbits)


def _gzip(budget: Budget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    return inflate(budget, _bytes_of(args, kwargs), 31, members=True)


def _lzma(budget: Budget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    names = ("data", "format", "memlimit", "filters")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return unlzma(budget, _bytes_of(args, kwargs), given.get("format", lzma.FORMAT_AUTO), given.get("filters"))


def _only_data(function: Callable[[Budget, bytes], bytes]) -> Decoder:
    return lambda budget, args, kwargs: function(budget, _bytes_of(args, kwargs))


def _guarded(decoder: Decoder) -> Decoder:
    """``decoder`` with every failure on bad data turned into DecodeError."""

    def decode(budget: Budget, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        try:
            return decoder(budget, args, kwargs)
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            OverflowError,
            EOFError,
            OSError,
            MemoryError,
            StopIteration,
            zlib.error,
            lzma.LZMAError,
            brotli.error,
            zstandard.ZstdError,
            binascii.Error,
        ) as error:
            raise DecodeError(str(error) or type(error).__name__) from error

    return decode


_ZSTD = _only_data(unzstd)

DECODERS: dict[str, Decoder] = {
    name: _guarded(decoder)
    for name, decoder in {
        "base64.b64decode": _text_decoder(base64.b64decode),
        "base64.standard_b64decode": _text_decoder(base64.standard_b64decode),
        "base64.urlsafe_b64decode": _text_decoder(base64.urlsafe_b64decode),
        "base64.decodebytes": _text_decoder(base64.decodebytes),
        "base64.b32decode": _text_decoder(base64.b32decode, MAX_BASE85),
        "base64.b32hexdecode": _text_decoder(base64.b32hexdecode, MAX_BASE85),
        "base64.b16decode": _text_decoder(base64.b16decode),
        "base64.a85decode": _text_decoder(base64.a85decode, MAX_BASE85),
        "base64.b85decode": _text_decoder(base64.b85decode, MAX_BASE85),
        "base64.z85decode": _text_decoder(_z85, MAX_BASE85),
        "binascii.a2b_base64": _text_decoder(binascii.a2b_base64),
        "binascii.unhexlify": _text_decoder(binascii.unhexlify),
        "binascii.a2b_hex": _text_decoder(binascii.a2b_hex),
        "binascii.a2b_uu": _text_decoder(binascii.a2b_uu),
        "bytes.fromhex": _text_decoder(bytes.fromhex),
        "zlib.decompress": _zlib,
        "gzip.decompress": _gzip,
        "bz2.decompress": _only_data(unbz2),
        "lzma.decompress": _lzma,
        "brotli.decompress": _only_data(unbrotli),
        "brotlicffi.decompress": _only_data(unbrotli),
        "zstandard.decompress": _ZSTD,
        "zstd.decompress": _ZSTD,
        "pyzstd.decompress": _ZSTD,
        "compression.zstd.decompress": _ZSTD,
    }.items()
}
DECODERS |= {
    f"compression.{name}": DECODERS[name]
    for name in ("zlib.decompress", "gzip.decompress", "bz2.decompress", "lzma.decompress")
}
