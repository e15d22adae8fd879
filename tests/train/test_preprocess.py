from __future__ import annotations

import contextlib
import subprocess
import sys
from io import BytesIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from support import gridded, pictures
from trainserve.train.preprocess import PictureError, Preprocessing, decode, preprocess, to_tensor

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL")  # as the module does; pytest puts its own filters before

SMALL = Preprocessing.for_size(16, 50_000_000)


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def close(a: tuple[int, ...], b: tuple[int, ...], by: int = 12) -> bool:
    return all(abs(x - y) <= by for x, y in zip(a, b, strict=True))


def test_the_numbers_survive_json():
    assert Preprocessing.from_dict(SMALL.to_dict()) == SMALL
    assert (SMALL.resize, Preprocessing.for_size(224, 1).resize) == (16, 256)


@pytest.mark.parametrize("change", [{"resize": 8}, {"std": [1, 1, 0]}, {"mean": [0, 0]}, {"extra": 1}])
def test_impossible_numbers_are_refused(change):
    with pytest.raises(ValueError, match=r"must be|fields"):
        Preprocessing.from_dict({**SMALL.to_dict(), **change})


@pytest.mark.parametrize("mode", pictures.MODES)
def test_every_mode_becomes_rgb_and_a_tensor(mode):
    data = pictures.picture(mode)
    image = decode(data, SMALL)
    assert (image.mode, image.size) == ("RGB", (24, 16))
    tensor = preprocess(data, SMALL)
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F", "L"])
def test_grey_of_any_depth_is_the_same_grey(mode):
    expected = decode(pictures.encode(pictures.corners().convert("L")), SMALL)
    assert decode(pictures.picture(mode), SMALL).tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", ["P", "RGB", "CMYK", "GIF"])
def test_colour_of_any_mode_is_the_same_colour(mode):
    image = decode(pictures.picture(mode), SMALL)
    for (x, y), colour in zip([(2, 2), (20, 2), (2, 13), (20, 13)], pictures.CORNERS, strict=True):
        assert close(pixel(image, x, y), colour)


@pytest.mark.parametrize("mode", ["P+alpha", "RGB+trns", "L+trns"])
def test_a_transparent_colour_becomes_white(mode):
    image = decode(pictures.picture(mode), SMALL)
    assert sum(pixel(image, x, y) == (255, 255, 255) for x, y in [(2, 2), (20, 2), (2, 13), (20, 13)]) == 1


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_on_white(mode):
    clear = Image.new(mode, (8, 8), 0)
    assert decode(pictures.encode(clear), SMALL).getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_img_04_orientation_is_applied(orientation, format):
    upright = to_tensor(pictures.corners(), SMALL)
    turned = preprocess(pictures.oriented(pictures.corners(), orientation, format), SMALL)
    assert (upright - turned).abs().max() < 0.25


def test_broken_exif_means_upright():
    data = bytearray(pictures.oriented(pictures.corners(), 6))
    start = data.index(b"Exif\0\0") + 6
    data[start : start + 8] = b"\xff" * 8
    assert decode(bytes(data), SMALL).size == (16, 24)


def test_img_06_the_pixel_limit_comes_before_decoding():
    bomb = pictures.encode(Image.new("1", (20_000, 10_000)))
    with pytest.raises(PictureError, match=r"20000 x 10000 = 200,000,000 pixels .* 178,956,970 \(maxPixels\)"):
        decode(bomb, Preprocessing.for_size(16, 178_956_970))
    edge = Preprocessing.for_size(16, 24 * 16)
    assert decode(pictures.picture("RGB"), edge).size == (24, 16)
    with pytest.raises(PictureError):
        decode(pictures.picture("RGB", 25, 16), edge)


def test_a_raised_limit_is_enough():
    decode(pictures.encode(Image.new("1", (20_000, 10_000))), Preprocessing.for_size(16, 200_000_000))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, world", "not a picture in a format"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (bytes(1_000_000), "zeros"),
        (b"GIF89a", "truncated|corrupt|not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a format"),
    ],
)
def test_what_is_no_picture_has_a_short_reason(data, reason):
    with pytest.raises(PictureError, match=reason) as caught:
        decode(data, SMALL)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_img_03_truncated_pictures_are_refused(format, share):
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = pictures.encode(noise, format)
    with pytest.raises(PictureError):
        decode(data[: int(len(data) * share)], SMALL)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(pictures.MODES), st.data())
def test_mangled_bytes_raise_nothing_but_picture_error(mode, data):
    mangled = bytearray(pictures.picture(mode))
    for _ in range(data.draw(st.integers(1, 6))):
        mangled[data.draw(st.integers(0, len(mangled) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PictureError):
        preprocess(bytes(mangled), Preprocessing.for_size(16, 1_000_000))


def test_large_jpegs_are_decoded_smaller_and_look_the_same():
    large = pictures.corners(1600, 1200)
    image = decode(pictures.encode(large, "JPEG"), SMALL)
    assert image.size == (200, 150)
    assert (to_tensor(large, SMALL) - to_tensor(image, SMALL)).abs().max() < 0.15


def test_the_centre_of_the_picture_is_kept():
    wide = Image.new("RGB", (300, 100), (0, 0, 0))
    wide.paste((255, 255, 255), (100, 0, 200, 100))
    tensor = to_tensor(wide, SMALL)
    assert (tensor[:, :, 1:-1] > 2).all()


def test_resize_and_crop_agree_with_torchvision():
    from torchvision.transforms import functional

    preprocessing = Preprocessing.for_size(112, 10**8)
    image = Image.open(BytesIO(pictures.encode(Image.effect_noise((300, 256), 60).convert("RGB"))))
    reference = functional.normalize(
        functional.to_tensor(functional.center_crop(functional.resize(image, [128]), [112])),
        list(preprocessing.mean),
        list(preprocessing.std),
    )
    assert (to_tensor(image, preprocessing) - reference).abs().mean() < 0.02


def test_extreme_shapes_cost_no_more():
    assert preprocess(pictures.encode(Image.new("L", (1, 60_000))), Preprocessing.for_size(224, 10**8)).shape[1] == 224


def test_decoding_imports_no_torch():
    code = "import sys, trainserve.train.preprocess; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def heic(image: Image.Image, **options: object) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return pictures.encode(image, "HEIF", quality=90, chroma=444, **options)


def avif(image: Image.Image, **options: object) -> bytes:
    return pictures.encode(image, "AVIF", quality=95, subsampling="4:4:4", **options)


@pytest.mark.parametrize("encoded", [heic, avif])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_heic_and_avif_are_read_as_others_are(encoded, mode):
    image = pictures.corners(96, 64).convert(mode)
    got = decode(encoded(image), SMALL)
    assert (got.mode, got.size) == ("RGB", (96, 64))
    assert (to_tensor(got, SMALL) - to_tensor(image.convert("RGB"), SMALL)).abs().max() < 0.3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("encoded", [heic, avif])
def test_img_04_a_turned_heic_or_avif_is_turned_back_once(encoded, orientation):
    """The containers have a turn of their own (irot, imir) beside EXIF's: both are written here, one must count."""
    upright = pictures.corners(96, 64)
    with Image.open(BytesIO(pictures.oriented(upright, orientation, "PNG"))) as stored:
        bare = Image.frombytes(stored.mode, stored.size, stored.tobytes())
        data = encoded(bare, exif=stored.getexif().tobytes()) if orientation > 1 else encoded(bare)
    assert orientation == 1 or b"irot" in data or b"imir" in data
    assert (preprocess(data, SMALL) - to_tensor(upright, SMALL)).abs().max() < 0.3


@pytest.mark.parametrize("encoded", [heic, avif])
def test_img_06_a_heic_or_avif_that_says_less_than_it_holds_is_refused_before_decoding(encoded):
    data = bytearray(encoded(Image.new("RGB", (1200, 1000), (9, 9, 9))))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = (16).to_bytes(4, "big") * 2
    with pytest.raises(PictureError, match=r"1200 ?x ?1000"):
        decode(bytes(data), Preprocessing.for_size(16, 1_000_000))


def test_img_06_an_animated_avif_is_measured_by_its_first_picture():
    moving = pictures.encode(pictures.corners(), "AVIF", save_all=True, append_images=[pictures.corners()])
    assert decode(moving, Preprocessing.for_size(16, 24 * 16)).size == (24, 16)
    with pytest.raises(PictureError, match="24 x 16 = 384"):
        decode(moving, Preprocessing.for_size(16, 24 * 16 - 1))


def test_an_avif_that_hides_its_picture_is_refused():
    data = avif(pictures.corners())
    with pytest.raises(PictureError):
        decode(data.replace(b"iloc", b"free"), SMALL)


def test_without_pillow_heif_the_package_is_named(monkeypatch):
    from trainserve.train import preprocess as module

    module._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(PictureError, match="pip install pillow-heif"):
        decode(data, SMALL)


def test_img_06_a_tile_larger_than_the_picture_counts():
    """A TIFF of 8 x 8 pixels may have a tile of 8,000 x 8,000, which a decoder takes whole: here 190 MB."""
    tags = [(256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (277, 1), (322, 8000), (323, 8000), (324, 8), (325, 9)]
    entries = b"".join(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in tags)
    data = b"II*\0" + (17).to_bytes(4, "little") + bytes(9) + len(tags).to_bytes(2, "little") + entries + bytes(4)
    with pytest.raises(PictureError, match=r"8000 x 8000 = 64,000,000 pixels"):
        decode(data, Preprocessing.for_size(16, 1_000_000))


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_takes_hours():
    data = pictures.encode(Image.new("RGB", (400, 400)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    limit = Preprocessing.for_size(16, 400 * 400)
    assert decode(data[:-2] + 20 * scan + data[-2:], limit).size == (50, 50)
    with pytest.raises(PictureError, match=r"1010 scans of 400 x 400 pixels"):
        decode(data[:-2] + 1000 * scan + data[-2:], limit)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".avif", ".png"])
def test_of_several_frames_the_first_is_seen(suffix):
    first, second = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
    data = pictures.encode(first, suffix[1:].upper(), save_all=True, append_images=[second])
    assert close(pixel(decode(data, SMALL), 8, 8), (250, 0, 0), by=30)


def test_pillow_says_nothing_beside_its_exception(capfd):
    data = pictures.picture("I;16B")
    wrong = data.replace(
        (277).to_bytes(2, "big") + b"\0\3\0\0\0\1\0\1", (277).to_bytes(2, "big") + b"\0\3\0\0\0\1\xff\xff"
    )
    assert wrong != data
    with pytest.raises(PictureError):
        decode(wrong, SMALL)
    assert capfd.readouterr() == ("", "")


RED, BLUE = Image.new("RGB", (64, 64), (250, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 250))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_picture_of_tiles_is_put_together(kind):
    import pillow_heif

    pillow_heif.register_heif_opener()
    image = decode(gridded.grid(RED, BLUE, kind, (100, 64), (100, 64)), Preprocessing.for_size(16, 100 * 64))
    assert image.size == (100, 64)
    assert close(pixel(image, 8, 8), (250, 0, 0))
    assert close(pixel(image, 90, 8), (0, 0, 250))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize(
    ("size", "stated", "columns", "message"),
    [
        ((8192, 4096), (16, 16), 2, r"8192 x 4096 = 33,554,432 pixels"),
        ((128, 64), (128, 64), 200, r"its tiles have 827,392 pixels together|Invalid image grid"),
    ],
)
def test_img_06_tiles_count_before_one_is_decoded(kind, size, stated, columns, message):
    import pillow_heif

    pillow_heif.register_heif_opener()
    data = gridded.grid(RED, BLUE, kind, size, stated, columns)
    with pytest.raises(PictureError, match=message):
        decode(data, Preprocessing.for_size(16, 100_000))
