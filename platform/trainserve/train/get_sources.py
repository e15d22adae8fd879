"""Which example data sets there are: their files with pinned digests, their classes, their licences. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass

from trainserve.errors import UserError, nearest


@dataclass(frozen=True)
class Remote:
    """A file of a data set. The MD5 digests are those that the data set's authors or torchvision publish."""

    name: str
    url: str
    md5: str


@dataclass(frozen=True)
class Source:
    """A data set as it is published."""

    name: str
    licence: str
    files: tuple[Remote, ...] = ()  # all are needed
    others: tuple[Remote, ...] = ()  # the first of `files` in other sizes: taken where somebody has it
    classes: tuple[str, ...] = ()  # in the order of the labels; empty where the files or torchvision name them
    wordnet: tuple[str, ...] = ()  # folders in the archive, in the order of the classes

    def wanted(self, md5: str) -> Remote | None:
        """Which of its files has this digest."""
        return next((file for file in (*self.files, *self.others) if file.md5 == md5), None)


_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_CIFAR = "https://www.cs.toronto.edu/~kriz"
_FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_IMAGENETTE = "https://s3.amazonaws.com/fast-ai-imageclas"

SOURCES = {
    source.name: source
    for source in (
        Source(
            "digits",
            "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, "
            "CC BY 4.0",
            classes=tuple("0123456789"),
        ),
        Source(
            "fashion-mnist",
            "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, Zalando SE, MIT",
            tuple(
                Remote(name, f"{_FASHION}/{name}", md5)
                for name, md5 in (
                    ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                    ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
                    ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
                    ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
                )
            ),
            classes=(
                "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
            ),
        ),
        Source(
            "cifar10",
            "CIFAR-10, A. Krizhevsky, V. Nair and G. Hinton, University of Toronto; no licence is stated, research use "
            "with citation is usual",
            (
                Remote(
                    "cifar-10-binary.tar.gz", f"{_CIFAR}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
                ),
            ),
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ),
        Source(
            "flowers102",
            "102 Category Flower Dataset, M.-E. Nilsback and A. Zisserman, Visual Geometry Group, University of "
            "Oxford; no licence is stated, the pictures belong to their photographers",
            tuple(
                Remote(name, f"{_FLOWERS}/{name}", md5)
                for name, md5 in (
                    ("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
                    ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
                    ("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
                )
            ),
        ),
        Source(
            "imagenette",
            "Imagenette, fast.ai, Apache-2.0 (a subset of ImageNet, whose pictures are for non-commercial research)",
            (Remote("imagenette2-160.tgz", f"{_IMAGENETTE}/imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"),),
            (
                Remote(
                    "imagenette2-320.tgz", f"{_IMAGENETTE}/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"
                ),
                Remote("imagenette2.tgz", f"{_IMAGENETTE}/imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),
            ),
            classes=(
                "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
                "gas pump", "golf ball", "parachute",
            ),
            wordnet=(
                "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
                "n03445777", "n03888257",
            ),
        ),
    )
}  # fmt: skip


def source_named(name: str) -> Source:
    """The data set of this name. Raises UserError with the nearest one."""
    if name in SOURCES:
        return SOURCES[name]
    near = nearest(name, SOURCES)
    raise UserError(
        f"no data set {name!r}" + (f", did you mean {near!r}?" if near else ""), hint=f"one of {', '.join(SOURCES)}"
    )
