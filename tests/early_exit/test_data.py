"""Loaders of local files: what is written is read, and what is damaged is refused."""

import gzip
import struct

import numpy as np
import pytest

from gatewise.early_exit.data import FASHION_MNIST, load_images, read_idx
from gatewise.exceptions import InputError


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (7, 5, 4), dtype=np.uint8), rng.integers(0, 3, 7, dtype=np.uint8)


@pytest.mark.parametrize("compressed", [True, False])
def test_idx(tmp_path, images, compressed):
    x, y = images
    for name, part in (("train-images-idx3-ubyte", x), ("train-labels-idx1-ubyte", y)):
        content = idx_bytes(part)
        path = tmp_path / (name + ".gz" * compressed)
        path.write_bytes(gzip.compress(content) if compressed else content)
    found, labels = load_images("idx", tmp_path)
    assert found.shape == (7, 1, 5, 4)
    np.testing.assert_allclose(found[:, 0].numpy(), x / 255.0, rtol=1e-6)
    assert labels.tolist() == y.tolist()
    with pytest.raises(InputError, match="has no t10k-images-idx3-ubyte"):
        load_images("idx", tmp_path, "test")


def test_damaged_idx_files(tmp_path, images):
    whole = idx_bytes(images[0])
    for content, said in (
        (whole[:-1], "says that it holds 140 bytes, and has 139"),
        (b"abcd", "is no IDX file"),
        (whole[:6], "ends within its header"),
        (gzip.compress(whole)[:30], "is damaged"),
        (struct.pack(">HBB4I", 0, 8, 4, *[2**32 - 1] * 4), "says that it holds"),
    ):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(InputError, match=said):
            read_idx(tmp_path / "x")
    with pytest.raises(InputError, match="cannot be read: no such file"):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize(("names", "before"), [(["data_batch_1.bin", "data_batch_2.bin"], 0), (["train.bin"], 1)])
def test_cifar(tmp_path, names, before):
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 9, (4, 3073 + before), dtype=np.uint8)
    for name in names:
        (tmp_path / name).write_bytes(rows.tobytes())
    x, y = load_images("cifar", tmp_path)
    assert x.shape == (4 * len(names), 3, 32, 32)
    assert y[:4].tolist() == rows[:, before].tolist()
    np.testing.assert_allclose(x[0].numpy().ravel(), rows[0, 1 + before :] / 255.0, rtol=1e-6)
    (tmp_path / names[0]).write_bytes(b"123")
    with pytest.raises(InputError, match="do not fill it"):
        load_images("cifar", tmp_path)
    with pytest.raises(InputError, match="holds no CIFAR"):
        load_images("cifar", tmp_path / "none")


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn(tmp_path, compressed):
    io = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8), np.array([[1], [10], [3], [9], [2]], dtype=np.uint8)
    path = tmp_path / "train_32x32.mat"
    io.savemat(path, {"X": x, "y": y}, do_compression=compressed)
    images, labels = load_images("svhn", tmp_path)
    assert labels.tolist() == [1, 0, 3, 9, 2]
    np.testing.assert_allclose(images[1].numpy(), x[..., 1].transpose(2, 0, 1) / 255.0, rtol=1e-6)
    whole = path.read_bytes()
    for content in (b"", b"none", whole[:100], whole[: len(whole) // 2], whole[:140] + bytes(400)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is no (file of MATLAB's|SVHN)"):
            load_images("svhn", tmp_path)
    for wrong in ({"X": x}, {"X": x[..., :3], "y": y}, {"X": x, "y": y + 1}, {"X": x / 2.0, "y": y}, {"z": y}):
        io.savemat(path, wrong)
        with pytest.raises(InputError, match="is no SVHN"):
            load_images("svhn", tmp_path)
    with pytest.raises(InputError, match=r"test_32x32\.mat cannot be read: no such file"):
        load_images("svhn", tmp_path, "test")


def test_arrays(tmp_path):
    np.save(tmp_path / "train_images.npy", np.ones((3, 1, 2, 2), np.float32))
    np.save(tmp_path / "train_labels.npy", np.arange(3))
    assert load_images("arrays", tmp_path)[1].tolist() == [0, 1, 2]
    np.save(tmp_path / "train_labels.npy", np.arange(4))
    with pytest.raises(InputError, match="classes of shape"):
        load_images("arrays", tmp_path)
    np.save(tmp_path / "train_labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read"):
        load_images("arrays", tmp_path)


def test_folders_of_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name, shade in (("cat", 10), ("ant", 20)):
        (tmp_path / "train" / name).mkdir(parents=True)
        image.new("RGB", (4, 3), (shade, 0, 0)).save(tmp_path / "train" / name / "a.png")
    x, y = load_images("image_folder", tmp_path)
    assert (x.shape, y.tolist()) == ((2, 3, 3, 4), [0, 1])
    assert round(float(x[0, 0, 0, 0]) * 255) == 20


def test_unknown_kinds(tmp_path):
    with pytest.raises(InputError, match="there is no loader 'cifr': did you mean 'cifar'"):
        load_images("cifr", tmp_path)
    with pytest.raises(InputError, match="part must be"):
        load_images("idx", tmp_path, "val")


def test_debians_package():
    if not FASHION_MNIST.exists():
        pytest.skip("the package dataset-fashion-mnist is not installed")
    x, y = load_images("idx", FASHION_MNIST, "test")
    assert (x.shape, len(y)) == ((10_000, 1, 28, 28), 10_000)
