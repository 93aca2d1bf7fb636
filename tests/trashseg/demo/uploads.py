"""Photos, and what is none, to send."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

UPRIGHT = 1
TURNED_LEFT = 6  # EXIF: the camera was held so that the photo has to be turned right


def photo(
    width: int = 90, height: int = 60, form: str = "JPEG", seed: int = 0, **options: object
) -> bytes:
    """Coarse coloured noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return encode(Image.fromarray(coarse).resize((width, height)), form, **options)


def phone_photo() -> bytes:
    """12 megapixels in more than 12 MB, dark above and bright below when turned upright to 3024x4032."""
    noise = np.random.default_rng(0).integers(0, 64, (4032, 3024, 3), dtype=np.uint8)
    noise[2016:] += 191
    return encode(Image.fromarray(np.rot90(noise)), "JPEG", TURNED_LEFT, quality=95, subsampling=0)


def encode(image: Image.Image, form: str, orientation: int = UPRIGHT, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = BytesIO()
    image.save(content, form, exif=exif, **options)
    return content.getvalue()


def huge_png(side: int = 20_000) -> bytes:
    """A grey square that is small as a file, and `side`^2 bytes when decoded."""
    compress = zlib.compressobj()
    row = bytes(1 + side)
    rows = b"".join([*(compress.compress(row) for _ in range(side)), compress.flush()])
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", rows), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip
