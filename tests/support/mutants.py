"""Pictures with something wrong, each made from a number: the same number, the same bytes, on every machine.

The originals are files in `tests/fuzz/originals`, one for each format and mode; what encoders make of a picture differs
from version to version.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from support import gridded, pictures

ORIGINALS = Path(__file__).parents[1] / "fuzz" / "originals"
# Numbers that decoders multiply: sizes at the edges of 8, 16, 31 and 32 bits.
EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
MARKS = [
    b"\xff\xda", b"\xff\xc4", b"\xff\xd9", b"\xff\xc0", b"\xff\xe1", b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"IEND",
    b"acTL", b"fcTL", b"RIFF", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"GIF89a", b"\x21\xf9", b"\x2c\0",
    b"BM", b"II*\0", b"MM\0*", b"P6\n", b"ftyp", b"meta", b"iloc", b"ispe", b"iprp", b"ipma", b"av1C", b"hvcC",
    b"mdat", b"Exif", b"iref", b"dimg", b"idat", b"iinf", b"grid",
]  # fmt: skip


def originals() -> list[tuple[str, bytes]]:
    """(name, bytes) of the unharmed pictures, sorted by name."""
    return [(path.name, path.read_bytes()) for path in sorted(ORIGINALS.iterdir())]


def mutant(seed: int, unharmed: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """(what was done to which original, the bytes)."""
    chance = random.Random(seed)
    name, data = unharmed[seed % len(unharmed)]
    _, other = chance.choice(unharmed)
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        kind = chance.choice(list(WAYS))
        data = WAYS[kind](chance, data, other)
        done.append(kind)
    return f"{name}: {', '.join(done)}", data


def _flip(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Bits, anywhere."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_head(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Bits among the first 100 bytes, where sizes are."""
    return _flip(chance, data[:100], other) + data[100:]


def _overwrite(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """A number at the edge of a type, in either byte order."""
    width = chance.choice([1, 2, 4])
    number = (chance.choice(EDGES) & (1 << 8 * width) - 1).to_bytes(width, chance.choice(["big", "little"]))
    at = chance.randrange(max(1, len(data) if chance.random() < 0.5 else min(len(data), 200)))
    return data[:at] + number + data[at + width :]


def _cut(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data) + 1)]


def _drop(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """A piece is missing."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.randrange(1, 64) :]


def _repeat(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """A piece comes again, up to 200 times."""
    at = chance.randrange(len(data) + 1)
    piece = data[at : at + chance.randrange(1, 64)]
    return data[:at] + piece * chance.choice([2, 3, 200]) + data[at + len(piece) :]


def _head_of(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """The head of another picture."""
    length = chance.choice([4, 12, 32, 64, 200])
    return other[:length] + data[length:]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """From the middle of one into the middle of another."""
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other)) :]


def _after_mark(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Something else after one of the marks that formats have."""
    there = [mark for mark in MARKS if mark in data]
    if not there:
        return data
    mark = chance.choice(there)
    at = data.index(mark) + len(mark)
    if chance.random() < 0.3:
        return data[: at - len(mark)] + chance.choice(MARKS) + data[at:]
    noise = chance.randbytes(chance.choice([1, 2, 4, 8]))
    return data[:at] + noise + data[at + len(noise) :]


def _insert(chance: random.Random, data: bytes, _: bytes) -> bytes:
    """Noise."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:]


WAYS: dict[str, Callable[[random.Random, bytes, bytes], bytes]] = {
    "flip": _flip,
    "flip head": _flip_head,
    "overwrite": _overwrite,
    "cut": _cut,
    "drop": _drop,
    "repeat": _repeat,
    "head of another": _head_of,
    "splice": _splice,
    "after a mark": _after_mark,
    "insert": _insert,
}


def write_originals(folder: Path) -> None:
    """Make the originals anew: `python -c "from support.mutants import *; write_originals(ORIGINALS)"`, in tests/."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    folder.mkdir(exist_ok=True)
    made = {mode: pictures.picture(mode, 40, 32) for mode in pictures.MODES}
    image, noise = pictures.corners(40, 32), Image.effect_noise((40, 32), 60).convert("RGB")
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF"):
        made[f"noise-{kind}"] = pictures.encode(noise, kind)
    for orientation in (3, 6):
        made[f"turned-{orientation}-JPEG"] = pictures.oriented(image, orientation)
    made |= {
        "progressive-JPEG": pictures.encode(noise, "JPEG", progressive=True),
        "grey-JPEG": pictures.encode(noise.convert("L"), "JPEG"),
        "moving-PNG": pictures.encode(image, "PNG", save_all=True, append_images=[noise]),
        "moving-WEBP": pictures.encode(image, "WEBP", save_all=True, append_images=[noise]),
        "lossless-WEBP": pictures.encode(noise, "WEBP", lossless=True),
        "alpha-WEBP": pictures.encode(image.convert("RGBA"), "WEBP"),
        "alpha-AVIF": pictures.encode(image.convert("RGBA"), "AVIF"),
        "moving-AVIF": pictures.encode(image, "AVIF", save_all=True, append_images=[noise]),
        "alpha-HEIF": pictures.encode(image.convert("RGBA"), "HEIF"),
        "tiled-HEIF": gridded.grid(image.resize((64, 64)), noise.resize((64, 64)), "HEIF", (128, 64), (128, 64)),
        "tiled-AVIF": gridded.grid(image.resize((64, 64)), noise.resize((64, 64)), "AVIF", (128, 64), (128, 64)),
        "palette-BMP": pictures.encode(image.quantize(8), "BMP"),
        **{
            f"{way}-TIFF": pictures.encode(noise, "TIFF", compression=way)
            for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        },
    }
    for name, data in made.items():
        (folder / name.replace(";", "")).write_bytes(data)
