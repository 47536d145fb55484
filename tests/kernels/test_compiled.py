"""What numba's compiler leaves in memory."""

import os

import pytest

from millstream.kernels.compiled import njit, unwritten

pytestmark = pytest.mark.skipif(not unwritten("libllvmlite"), reason="the system does not tell of its memory maps")


def resident(maps):
    """Bytes of the maps that are in memory, by the system's account of pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    with open("/proc/self/pagemap", "rb") as pages:
        for begin, length in maps:
            pages.seek(begin // page * 8)
            entries = pages.read(length // page * 8)
            total += page * sum(entry >> 7 for entry in entries[7::8])
    return total


def test_the_compiler_leaves_no_pages_and_works_again():
    maps = unwritten("libllvmlite")
    assert sum(length for _, length in maps) > 10 << 20

    @njit
    def doubled(x):
        return x + x

    assert doubled(2) == 4
    assert resident(maps) < 1 << 20
    assert doubled(2.5) == 5.0  # another type: compiled anew
    assert doubled(2) == 4


def test_no_library_no_maps():
    assert unwritten("no such library") == []
