"""From the bytes of a picture to the tensor the network sees: the same file in training and in serving.

Packaging copies this file byte for byte beside the weights, so it imports torch, Pillow and the standard library only
(torch late: checking pictures does not need it), and pillow-heif where a HEIC picture comes and it is installed.

Any picture becomes upright RGB: EXIF orientation applied, grey and palette expanded, transparency laid on white,
16-bit grey reduced to its high byte (as Pillow does for 16-bit colour), CMYK converted, the first frame of an
animation. JPEGs much larger than needed are decoded at 1/2, 1/4 or 1/8 of their size.

Memory: at most about 12 bytes a pixel of the picture (alpha on white: picture, white, RGB).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image, UnidentifiedImageError, features

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL_PX = 64

# Formats whose header states the true size, so that the pixel limit holds before anything is decoded (an ICO, say, may
# hold a far larger PNG), and which start no other program (EPS does). An AVIF's header may lie: `_coded_pixels`.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF")
# Brands of ISO/IEC 23008-12 in a file's first box: HEVC pictures, single or in a sequence.
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
AVIF_BRANDS = {b"avif", b"avis"}

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's limit is one number for the whole process and only warns below twice its value; `max_pixels` below is an
# argument, strict, and checked first.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of harmless oddities, such as broken EXIF. Once for the process: catch_warnings is not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PictureError(ValueError):
    """These bytes are no picture we can read; the message is a short reason for whoever sent them."""


@dataclass(frozen=True)
class Preprocessing:
    """The numbers of the preprocessing. They travel from the spec through checkpoint and bundle to the server."""

    image_size: int  # px, side of the square the network sees
    resize: int  # px, the shorter side before the centre crop
    mean: tuple[float, float, float]  # of red, green, blue in 0..1
    std: tuple[float, float, float]
    max_pixels: int  # largest width x height decoded

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize:
            raise ValueError(f"image_size {self.image_size} must be from 1 to resize {self.resize}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} must be three numbers each, std above 0")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels {self.max_pixels} must be at least 1")

    @classmethod
    def for_size(cls, image_size: int, max_pixels: int) -> Preprocessing:
        """ImageNet's mean and std; above 64 px the shorter side is 256/224 of the crop, as is usual."""
        resize = image_size if image_size <= SMALL_PX else round(image_size * 256 / 224)
        return cls(image_size, resize, IMAGENET_MEAN, IMAGENET_STD, max_pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises ValueError for unknown, missing or impossible values."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            raise ValueError(f"preprocessing has the fields {sorted(values)}, expected {sorted(known)}")
        mean, std = ([float(number) for number in values[key]] for key in ("mean", "std"))
        return cls(
            int(values["image_size"]),
            int(values["resize"]),
            tuple(mean),  # type: ignore[arg-type]  # __post_init__ counts them
            tuple(std),  # type: ignore[arg-type]
            int(values["max_pixels"]),
        )


def preprocess(data: bytes, preprocessing: Preprocessing) -> torch.Tensor:
    """What the network sees of a picture: float32 [3, S, S], normalised. Raises PictureError."""
    return to_tensor(decode(data, preprocessing), preprocessing)


def decode(data: bytes, preprocessing: Preprocessing) -> Image.Image:
    """The picture, upright and RGB; a JPEG may be smaller than its file says, never below twice `resize`.

    Raises PictureError, and nothing else, for whatever the bytes hold.
    """
    if not data:
        raise PictureError("empty file")
    try:
        return _decode(data, preprocessing)
    except PictureError:
        raise
    except MemoryError:
        raise PictureError("decoding it needs more memory than there is") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError...
        raise PictureError(_reason(error, data)) from error


def open_picture(file: BinaryIO) -> Image.Image:
    """The picture in `file`, its header read and nothing decoded. Raises PictureError, and whatever Pillow raises."""
    head = file.read(64)
    file.seek(0)
    brands = {head[at : at + 4] for at in range(8, len(head), 4)} if head[4:8] == b"ftyp" else set()
    formats = [name for name in FORMATS if name not in {"AVIF", "HEIF"}]
    if brands & AVIF_BRANDS:
        if not features.check("avif"):
            raise PictureError("an AVIF picture, which this Pillow does not read: pip install 'pillow>=11.3'")
        formats = ["AVIF"]
    elif brands & HEIC_BRANDS:
        _register_heif()
        formats = ["HEIF"]
    return Image.open(file, formats=formats)


@functools.cache
def _register_heif() -> None:
    """Teach Pillow to read HEIC: only where one comes, for it costs a tenth of a second. Raises PictureError."""
    try:
        import pillow_heif
    except ImportError:
        raise PictureError("a HEIC picture, and pillow-heif is not installed here: pip install pillow-heif") from None
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _decode(data: bytes, preprocessing: Preprocessing) -> Image.Image:
    with open_picture(BytesIO(data)) as opened:
        width, height = opened.size
        if width * height > preprocessing.max_pixels:
            raise PictureError(
                f"{width} x {height} = {width * height:,} pixels is more than the limit of "
                f"{preprocessing.max_pixels:,} (maxPixels)"
            )
        opened.draft(opened.mode, (2 * preprocessing.resize, 2 * preprocessing.resize))
        opened.load()
        turn = UPRIGHT.get(_orientation(opened))
        image = _rgb(opened)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; a broken EXIF block says nothing, so 1."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # the parser meets arbitrary bytes here
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, either byte order, or 32-bit integers: the range is taken as 0..65535
        high_byte = image.convert("I").point(lambda value: value * (1 / 256))
        return high_byte.convert("L").convert("RGB")  # to L clips
    if image.mode == "F":  # no range is defined: 0..1 unless a value is larger, then 0..255
        _, largest = image.getextrema()
        scale = 255.0 if largest <= 1 else 1.0  # type: ignore[operator]  # one band: two numbers
        return image.point(lambda value: value * scale + 0.0).convert("L").convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        over = image if image.mode == "RGBA" else _rgba(image)
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        white.alpha_composite(over)
        return white.convert("RGB")
    return image.convert("RGB")


def _rgba(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")
    return image.convert("RGBA")


def _reason(error: Exception, data: bytes) -> str:
    """A short reason, from what the decoder said and how the bytes begin."""
    if isinstance(error, UnidentifiedImageError):
        head = data[:256].lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg")):
            return "not a picture: it is an HTML or XML page"
        if not any(data[:4096]):
            return "not a picture: it begins with zeros"
        return f"not a picture in a format we read ({', '.join(FORMATS)})"
    text = " ".join(str(error).split())[:120]
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated: the file ends too early"
    return f"corrupt: {text or type(error).__name__}"


def to_tensor(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize the shorter side, crop the centre, normalise: float32 [3, S, S].

    One bilinear, antialiased resize of the region that the crop keeps: nothing outside it is computed, so a picture of
    1 x 1,000,000 pixels costs no more than another.
    """
    width, height = image.size
    size = preprocessing.image_size
    side = min(width, height) * size / preprocessing.resize  # of the kept square, in the picture's pixels
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return normalise(image.resize((size, size), Image.Resampling.BILINEAR, box=box), preprocessing)


def normalise(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """An RGB picture as float32 [3, H, W]: (value / 255 - mean) / std."""
    import torch

    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    values = pixels.permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (preprocessing.mean, preprocessing.std))
    return values.sub_(mean).div_(std)
