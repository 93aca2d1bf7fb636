"""An upload: refused by its first bytes, before anything is decoded, or decoded as `predict` does it."""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

from trashseg.demo.refusal import RefusedError

MEGABYTES = 25
MEGAPIXELS = 50
MAX_BYTES = MEGABYTES * 2**20
MAX_PIXELS = MEGAPIXELS * 1_000_000
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that tell the size
JPEG_SEGMENTS = 4096  # more than any camera writes before the frame
JPEG_ALONE = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a length


def decode_upload(content: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, turned upright by its EXIF tag; RefusedError if that may not or cannot be."""
    check_upload(content)
    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise RefusedError("damaged")
    return np.asarray(image, dtype=np.uint8)


def check_upload(content: bytes) -> None:
    """RefusedError if it has too many bytes or, by its own header, too many pixels, or is no photo."""
    check_bytes(len(content))
    if content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
        raise RefusedError("heic")
    width, height = read_size(content)
    if width * height > MAX_PIXELS:
        raise RefusedError("too_many_pixels", width=width, height=height, **pixel_limit())


def pixel_limit() -> dict[str, str]:
    """As it is said in English, in millions, and in Korean, in tens of thousands."""
    return {"megapixels": f"{MEGAPIXELS}", "man": f"{MEGAPIXELS * 100:,}"}


def check_bytes(count: int) -> None:
    if count > MAX_BYTES:
        raise RefusedError("too_large", megabytes=MEGABYTES)


def read_size(content: bytes) -> tuple[int, int]:
    """Width and height as the file's header states them; RefusedError where it is no JPEG, PNG or WebP,
    or its header is cut off. An image library might decode before it tells."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png_size(content)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp_size(content)
    except (struct.error, IndexError):
        raise RefusedError("damaged") from None
    raise RefusedError("not_a_photo")


def _png_size(content: bytes) -> tuple[int, int]:
    """Of the first chunk, which is IHDR (PNG specification, 11.2.1)."""
    kind, width, height = struct.unpack_from(">4sII", content, 12)
    if kind != b"IHDR":
        raise RefusedError("damaged")
    return width, height


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Of the first frame header (ITU T.81, B.2.2); EXIF thumbnails are inside a segment before it."""
    position = 2
    for _ in range(JPEG_SEGMENTS):
        if content[position] != 0xFF:
            raise RefusedError("damaged")
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, position + 5)
            return width, height
        elif marker in JPEG_ALONE:
            position += 2
        else:
            (length,) = struct.unpack_from(">H", content, position + 2)
            position += 2 + length
    raise RefusedError("damaged")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Of the first chunk: extended, lossless or lossy (RFC 9649, 2.7, 3.4; RFC 6386, 9.1)."""
    kind = content[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", content, 24)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise RefusedError("damaged")
