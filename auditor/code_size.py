"""How large a program is as shipped code: compressed in the ways of this contest, alone or in a text wrapper."""

from __future__ import annotations

import lzma
import zlib

import brotli

UNPACKER = 75
"""Bytes of the code around an encoded payload, roughly."""
LONG = 32_000
"""Texts from this many bytes on compress alike; below, headers and dictionaries weigh more."""
# Sizes by slower compressors against those by quicker ones: as on 80 long scripts of this contest, and some more.
LZMA_TO_ZLIB = (0.80, 1.02)
BROTLI_TO_ZLIB = (0.75, 0.98)
EXTREME_TO_LZMA = (0.97, 1.03)
BROTLI_TO_LZMA = (0.925, 0.99)


def ships_as(text: str, size: int) -> bool:
    """Whether ``text`` comes to about ``size`` bytes, within 0.5 % or 60 bytes, as shipped code.

    That is by zlib, LZMA or brotli at its best, alone or in base85 or base64 with the code that unpacks it. Quickest
    first; where a slower compressor cannot come near, it is not tried.
    """
    data = text.encode("utf-8", "replace")
    short = len(data) < LONG
    plain = len(zlib.compress(data, 9))
    if _near(size, plain):
        return True
    if not short and not _near(size, plain, LZMA_TO_ZLIB) and not _near(size, plain, BROTLI_TO_ZLIB):
        return False
    packed = _lzma(data, 6)
    if _near(size, packed):
        return True
    if (short or _near(size, packed, EXTREME_TO_LZMA)) and _near(size, _lzma(data, 9 | lzma.PRESET_EXTREME)):
        return True
    return (short or _near(size, packed, BROTLI_TO_LZMA)) and _near(size, len(brotli.compress(data, quality=11)))


def _lzma(data: bytes, preset: int) -> int:
    """Bytes of ``data`` by LZMA; a window no larger than the data takes less to set up and packs as well."""
    window = max(len(data), 4096)
    return len(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": preset, "dict_size": window}]))


def _near(size: int, compressed: int, factors: tuple[float, float] = (1.0, 1.0)) -> bool:
    """Whether ``size`` is that of a payload of ``compressed`` bytes times something between two factors."""
    low, high = (round(f * compressed) for f in factors)
    return any(
        least - max(60, least // 200) <= size <= most + max(60, most // 200)
        for least, most in zip(_wrapped(low), _wrapped(high), strict=True)
    )


def _wrapped(payload: int) -> tuple[int, int, int]:
    """A payload's bytes alone, in base85 and in base64."""
    return payload, -(-payload // 4) * 5 + UNPACKER, -(-payload // 3) * 4 + UNPACKER
