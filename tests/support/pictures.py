"""Pictures of any mode and format, as bytes, and folders of them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

MODES = ("1", "L", "P", "P+alpha", "LA", "RGB", "RGB+trns", "L+trns", "RGBA", "I;16", "I;16B", "I", "F", "CMYK", "GIF")
# Four corners of different brightness and colour, so that a turned or mirrored picture is another one.
CORNERS = ((250, 20, 20), (20, 250, 20), (20, 20, 250), (240, 240, 240))


def corners(width: int = 24, height: int = 16) -> Image.Image:
    """An RGB picture whose four quarters differ."""
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(CORNERS):
        x, y = index % 2 * (width // 2), index // 2 * (height // 2)
        image.paste(colour, (x, y, x + (width + 1) // 2, y + (height + 1) // 2))
    return image


def flat(colour: tuple[int, int, int], size: int = 16, format: str = "PNG") -> bytes:
    """One colour everywhere."""
    return encode(Image.new("RGB", (size, size), colour), format)


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def oriented(image: Image.Image, orientation: int, format: str = "JPEG") -> bytes:
    """`image` stored turned, with the EXIF tag that tells a reader to turn it back."""
    store = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image if store is None else image.transpose(store)
    options: dict[str, object] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    return encode(turned, format, exif=exif, **options)


def picture(mode: str, width: int = 24, height: int = 16) -> bytes:
    """A picture of one of MODES: of `corners`, as a file of a format that has this mode."""
    image = corners(width, height)
    if mode == "P":
        return encode(image.quantize(8))
    if mode == "P+alpha":
        return encode(image.quantize(8), transparency=0)
    if mode == "RGB+trns":
        return encode(image, transparency=CORNERS[0])
    if mode == "L+trns":
        grey = image.convert("L")
        return encode(grey, transparency=grey.getpixel((0, 0)))
    if mode in {"LA", "RGBA"}:
        image = image.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return encode(image)
    if mode in {"I;16", "I;16B", "I"}:
        sixteen = image.convert("L").convert("I").point(lambda value: value * 257)
        if mode == "I":
            return encode(sixteen, "TIFF")
        return encode(sixteen.convert("I;16")) if mode == "I;16" else big_endian_tiff(sixteen)
    if mode == "F":
        return encode(image.convert("L").convert("F"), "TIFF")
    if mode == "CMYK":
        return encode(image.convert("CMYK"), "JPEG", quality=95)
    if mode == "GIF":
        return encode(image, "GIF", save_all=True, append_images=[Image.new("RGB", image.size)])
    return encode(image.convert(mode))


def big_endian_tiff(image: Image.Image) -> bytes:
    """A 16-bit grey TIFF with the high byte first ("MM"), written by hand: uncompressed, one strip."""
    width, height = image.size
    pixels = b"".join(image.getpixel((x, y)).to_bytes(2, "big") for y in range(height) for x in range(width))  # type: ignore[union-attr]
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries = b"".join(
        tag.to_bytes(2, "big") + b"\0\3" + b"\0\0\0\1" + value.to_bytes(2, "big") + b"\0\0" for tag, value in tags
    )
    entries += (279).to_bytes(2, "big") + b"\0\4" + b"\0\0\0\1" + len(pixels).to_bytes(4, "big")
    directory = (len(tags) + 1).to_bytes(2, "big") + entries + b"\0\0\0\0"
    return b"MM\0\x2a" + (8 + len(pixels)).to_bytes(4, "big") + pixels + directory


def write_classes(root: Path, classes: dict[str, int], size: int = 16, suffix: str = ".png", seed: int = 0) -> Path:
    """Class folders with so many pictures each; every picture has a colour of its own near its class's."""
    for index, (name, count) in enumerate(classes.items()):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            colour = (index * 67 % 256, (number * 5 + seed) % 256, 255 - index * 31 % 256)
            data = flat(colour, size, "JPEG" if suffix in {".jpg", ".jpeg"} else "PNG")
            (folder / f"{number:04d}{suffix}").write_bytes(data)
    return root
