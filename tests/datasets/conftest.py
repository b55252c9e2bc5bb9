from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image


def chunk(kind, body):
    """Return a chunk of a PNG."""
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


@pytest.fixture(
    params=["1-bit", "2-bit grey", "4-bit grey", "16-bit grey", "4-bit palette", "32-bit", "float"]
)
def deep_label(request):
    """Return how a label is stored, and a function that writes 0 and 1 as such."""
    depth = request.param

    def write(path, ones):
        ones = np.asarray(ones)
        if depth in ("32-bit", "float"):
            kind = np.int32 if depth == "32-bit" else np.float32
            Image.fromarray(ones.astype(kind)).save(path, format="TIFF")
            return
        bits = int(depth.split("-")[0])
        height, width = ones.shape
        places = np.arange(bits)[::-1]
        rows = np.packbits((ones[..., None] >> places & 1).reshape(height, -1), axis=1)
        body = zlib.compress(np.insert(rows, 0, 0, axis=1).tobytes())
        colours = 3 if depth.endswith("palette") else 0
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
        palette = chunk(b"PLTE", bytes(48)) if colours else b""
        end = chunk(b"IDAT", body) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + palette + end)

    return depth, write


@pytest.fixture
def bomb():
    """Return a function that writes a small PNG which claims 100000 x 100000 pixels."""

    def write(path):
        header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
        body = zlib.compress(bytes(1 << 20)) * 4
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        return path

    return write
