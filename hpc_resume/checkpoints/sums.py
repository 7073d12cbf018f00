"""Every byte of many files summed and synced at once: reading, summing and writing back overlap in threads.

CRC-32 of zlib: 4.0 GB/s a core here, against 1.4 for SHA-256 and 0.75 for BLAKE2b, and it lets go of the GIL. It is
there to find what disks, networks and half-written files do, and finds every error burst of up to 32 bits; nobody can
be kept from forging it, and who can write here could forge any sum. The sums of pieces are joined (`combine`), so that
one large file uses several cores and several requests of a parallel file system.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

PIECE: Final = 32 << 20  # bytes that one thread sums; a file up to that is one piece
_BLOCK: Final = 1 << 20  # stays in the cache between the read and the sum
_NO_FOLLOW: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_POLYNOMIAL: Final = 0xEDB88320
_FEW: Final = 2  # files
_THREADS: Final = 4  # memory bound beyond that; a file system server has others to serve


@dataclass(frozen=True, slots=True)
class Sum:
    """`size` in bytes, `crc32` of all of them."""

    size: int
    crc32: int


def threads() -> int:
    """How many are worth while here: what the job may use, not what the node has."""
    return max(1, min(_THREADS, len(os.sched_getaffinity(0))))


def sum_files(paths: Sequence[Path], *, known: Mapping[Path, Sum] | None = None, sync: bool = False) -> list[Sum]:
    """The sums of `paths`, taken over from `known` where the size still fits; `sync` makes each durable, mode 0600.

    Raises OSError of the first that fails, with its file name. Links are not followed (ELOOP).
    """
    known = known or {}
    sizes = [_size(path) for path in paths]
    unknown = sum(size for path, size in zip(paths, sizes, strict=True) if not _is_known(known.get(path), size))
    # Threads cost more than they save for a few small files, and a sync alone needs none beside the caller's.
    if len(paths) <= _FEW and unknown <= PIECE:
        if sync:
            for path in paths:
                _sync(path)
        return [_sum_now(path, size, known.get(path)) for path, size in zip(paths, sizes, strict=True)]
    with ThreadPoolExecutor(threads() + sync, "hpc_resume-sum") as pool:
        try:
            syncs = [pool.submit(_sync, path) for path in paths] if sync else []
            begun = [_begin(pool, path, size, known.get(path)) for path, size in zip(paths, sizes, strict=True)]
            sums = [sum_of() for sum_of in begun]
            for future in syncs:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sums


def _is_known(known: Sum | None, size: int) -> TypeGuard[Sum]:
    return known is not None and known.size == size


def _sum_now(path: Path, size: int, known: Sum | None) -> Sum:
    return known if _is_known(known, size) else Sum(size, _sum_piece(path, 0, size))


def _begin(pool: Executor, path: Path, size: int, known: Sum | None) -> Callable[[], Sum]:
    """Give the pieces of one file to the pool; what is returned waits for them."""
    if _is_known(known, size):
        return lambda: known
    lengths = [min(PIECE, size - start) for start in range(0, size, PIECE)]
    pieces = [pool.submit(_sum_piece, path, number * PIECE, length) for number, length in enumerate(lengths)]
    return lambda: Sum(size, combine((piece.result(), length) for piece, length in zip(pieces, lengths, strict=True)))


def combine(pieces: Iterable[tuple[int, int]]) -> int:
    """The CRC-32 of the concatenation of pieces, each given as its (CRC-32, length)."""
    total = 0
    for crc, length in pieces:
        total = _times(_shift(length), total) ^ crc
    return total


def _times(left: int, right: int) -> int:
    """The product of two polynomials over GF(2) modulo CRC-32's, bit-reversed as the sums are."""
    product = 0
    for bit in range(31, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return product


@cache
def _power(exponent: int) -> int:
    """The polynomial x to the power of 2**exponent."""
    return 1 << 30 if exponent == 0 else _times(_power(exponent - 1), _power(exponent - 1))


def _shift(length: int) -> int:
    """The polynomial x to the power of 8 * length: what `length` more bytes do to a sum."""
    product, exponent = 1 << 31, 3
    while length:
        if length & 1:
            product = _times(_power(exponent), product)
        length >>= 1
        exponent += 1
    return product


def _size(path: Path) -> int:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ELOOP, "not a plain file", str(path))
    return found.st_size


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor to read `path` by; errors of it carry the path, which read(2) and fsync(2) do not know."""
    descriptor = os.open(path, _NO_FOLLOW)
    try:
        yield descriptor
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    with _opened(path) as descriptor:
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
        os.fsync(descriptor)


def _sum_piece(path: Path, start: int, length: int) -> int:
    crc, buffer = 0, bytearray(min(_BLOCK, length))
    view = memoryview(buffer)
    with _opened(path) as descriptor:
        while length:
            count = os.preadv(descriptor, [view[: min(len(view), length)]], start)
            if count == 0:
                raise OSError(errno.ENOENT, "it became shorter while it was read", str(path))
            crc = zlib.crc32(view[:count], crc)
            start, length = start + count, length - count
    return crc
