from __future__ import annotations

import struct
import zlib

import pytest


@pytest.fixture
def bomb():
    """Return a function that writes a small PNG which claims 100000 x 100000 pixels."""

    def chunk(kind, body):
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    def write(path):
        header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
        body = zlib.compress(bytes(1 << 20)) * 4
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        return path

    return write
