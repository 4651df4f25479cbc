"""Images, text and networks: every format gives the same data, and what is refused."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from paper_checks.training import Config, Dataset, train
from paper_checks.training.data import holdout, load_digits
from paper_checks.training.images import load_images
from paper_checks.training.model import build
from paper_checks.training.text import load_text
from paper_checks.training.wide_resnet import WideResNet

NAMES = ("cat", "dog")


def pictures(count: int = 24, side: int = 32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, is_test): smooth pictures, brighter for class 1; every third is for the test."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    slopes = rng.uniform(0, 3, size=(count, 3, 1, 1))
    x = 40 + 100 * y[:, None, None, None] + slopes * np.arange(side)[:, None]
    x = np.broadcast_to(x, (count, 3, side, side))
    return x.astype(np.uint8), y, np.arange(count) % 3 == 0


def raw(path: Path) -> Path:
    x, y, test = pictures()
    np.savez(path / "raw.npz", x=x, y=y, is_test=test, classes=np.array(NAMES))
    return path / "raw.npz"


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, kind, quality=95)
    return buffer.getvalue()


def archive(path: Path) -> Path:
    x, y, test = pictures()
    files = [encoded(image, "jpeg") for image in x]
    np.savez(
        path / "encoded.npz",
        jpeg=np.frombuffer(b"".join(files), dtype=np.uint8),
        offset=np.cumsum([0, *map(len, files)]),
        label=y.astype(np.uint8),
        is_test=test.astype(np.uint8),
        classes=np.array(NAMES),
    )
    return path / "encoded.npz"


def folders(path: Path) -> Path:
    for i, (image, label, test) in enumerate(zip(*pictures(), strict=True)):
        folder = path / "folders" / ("test" if test else "train") / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03}.png").write_bytes(encoded(image, "png"))
    return path / "folders"


def cifar(path: Path) -> Path:
    x, y, test = pictures(30)
    path = path / "cifar-10-batches-py"
    path.mkdir()
    parts = {f"data_batch_{i + 1}": np.flatnonzero(~test)[i::5] for i in range(5)}
    parts["test_batch"] = np.flatnonzero(test)
    for name, rows in parts.items():
        content = {"data": x[rows].reshape(len(rows), -1), "labels": y[rows].tolist()}
        (path / name).write_bytes(pickle.dumps(content, protocol=2))
    (path / "batches.meta").write_bytes(pickle.dumps({"label_names": list(NAMES)}, protocol=2))
    return path


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    want = load_images(raw(tmp_path))
    assert want.image == (3, 32, 32)
    assert want.classes == NAMES
    assert want.train_x.shape == (16, 3072)
    assert want.test_x.shape == (8, 3072)
    x, y, test = pictures()
    mean, deviation = (
        getattr(x[~test].astype(float), f)(axis=(0, 2, 3))[:, None, None] for f in ("mean", "std")
    )
    assert want.train_x.numpy() == pytest.approx(
        ((x[~test] - mean) / deviation).reshape(16, -1), abs=1e-5
    )
    assert want.train_y.tolist() == y[~test].tolist()

    same = load_images(folders(tmp_path))  # PNG loses nothing; sorted by class
    rows = np.argsort(y[~test], kind="stable")
    assert torch.equal(same.train_x, want.train_x[torch.from_numpy(rows)])
    assert same.train_y.tolist() == y[~test][rows].tolist()

    lossy = load_images(archive(tmp_path))
    assert torch.equal(lossy.train_y, want.train_y)
    # JPEG at quality 95 errs by a few of 255 grey levels; the deviation is about 60 of them.
    assert (lossy.train_x - want.train_x).abs().max() < 0.1

    found = load_images(cifar(tmp_path))
    assert (len(found.train_x), len(found.test_x)) == (20, 10)
    assert found.classes == NAMES
    x, y, test = pictures(30)
    assert sorted(found.train_y.tolist()) == sorted(y[~test].tolist())


def test_some_samples(tmp_path: Path) -> None:
    path = raw(tmp_path)
    some = load_images(path, samples=6)
    assert (len(some.train_x), len(some.test_x)) == (6, 8)
    assert load_images(path, samples=6).fingerprint() == some.fingerprint()
    for samples in (0, 17):
        with pytest.raises(ValueError, match=r"samples must be in \[1, 16\]"):
            load_images(path, samples=samples)


class _Evil:
    def __reduce__(self):
        return print, ("code has run",)


def test_a_pickle_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cifar(tmp_path)
    (path / "data_batch_2").write_bytes(pickle.dumps({"data": _Evil()}))
    with pytest.raises(ValueError, match=r"only arrays are unpickled, got builtins\.print"):
        load_images(path)
    assert capsys.readouterr().out == ""


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="existing file or folder"):
        load_images(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"must be an \.npz, CIFAR's python version"):
        load_images(tmp_path)
    path = tmp_path / "a.npz"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="archive of arrays"):
        load_images(path)
    x, y, test = pictures()
    for arrays, message in (
        ({"x": x, "y": y}, "must hold classes, is_test, jpeg, label, offset, or x, y and is_test"),
        ({"x": x / 255, "y": y, "is_test": test}, r"images must be uint8 of shape \(N, C, H, W\)"),
        ({"x": x, "y": y[:5], "is_test": test}, "must be as many, got 24, 5, 24"),
        ({"x": x, "y": y, "is_test": test | True}, "got only one of both"),
        ({"x": x, "y": y, "is_test": test, "classes": NAMES[:1]}, r"labels must be in \[0, 1\)"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message):
            load_images(path)
    odd = folders(tmp_path)
    (odd / "train" / "cat" / "000.png").write_bytes(encoded(pictures(1, 8)[0][0], "png"))
    with pytest.raises(ValueError, match="images must have one size"):
        load_images(odd)


def test_text_predicts_the_next_byte() -> None:
    text = load_text(samples=50)
    assert text.train_x.shape == text.train_y.shape == (50, 128)
    assert torch.equal(text.train_x[:, 1:], text.train_y[:, :-1])
    assert len(text.test_x) > 100
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        load_text(samples=0)


def test_holdout_is_by_class() -> None:
    data = load_digits()
    tuning, testing = holdout(data, 0.25)
    assert torch.equal(testing.test_x, data.test_x)
    assert len(tuning.train_x) + len(tuning.test_x) == len(data.train_x)
    for label in range(10):
        held, all_ = (int((y == label).sum()) for y in (tuning.test_y, data.train_y))
        assert held == round(0.25 * all_)
    for fraction in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
            holdout(data, fraction)
    with pytest.raises(ValueError, match="leave each class a sample"):
        holdout(data, 0.999)
    with pytest.raises(ValueError, match=r"test_fraction must be in \(0, 1\), got 1"):
        load_digits(test_fraction=1)


def colours(tmp_path: Path) -> Dataset:
    return load_images(raw(tmp_path))


@pytest.mark.parametrize("model", ["cnn", "resnet18", "wrn16x4"])
def test_networks_of_images_learn(model: str, tmp_path: Path) -> None:
    config = Config(
        model=model, width=4, epochs=20, batch_size=4, augment="crop-flip", nesterov=True,
        learning_rate=0.03,
    )  # fmt: skip
    before = torch.get_rng_state()
    record = train(config, colours(tmp_path))
    assert torch.equal(torch.get_rng_state(), before)
    assert record.curves.train_accuracy[-1] >= 0.9
    assert train(config, colours(tmp_path)).differences(record) == ()


def test_bfloat16_differs_a_little(tmp_path: Path) -> None:
    config = Config(model="cnn", width=4, epochs=1, batch_size=8, learning_rate=0.01)
    full = train(config, colours(tmp_path)).curves.train_loss[0]
    half = train(replace(config, precision="bfloat16"), colours(tmp_path)).curves.train_loss[0]
    assert half != full
    assert half == pytest.approx(full, rel=0.05)  # 8 bits of mantissa: 0.4 % an operation


def test_the_transformer_learns() -> None:
    text = load_text(samples=64)
    text = replace(text, test_x=text.test_x[:16], test_y=text.test_y[:16])
    config = Config(
        model="transformer", width=32, epochs=4, batch_size=8, optimizer="adamw",
        learning_rate=0.003,
    )  # fmt: skip
    curves = train(config, text).curves
    assert curves.test_loss[-1] < curves.test_loss[0] < np.log(256)
    with pytest.raises(ValueError, match="model 'transformer' needs tokens"):
        train(config, load_digits())


def test_networks_that_do_not_fit() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="model 'resnet18' needs 3 channels, 'digits' has 1"):
        build(Config(model="resnet18"), load_digits(), generator)
    with pytest.raises(ValueError, match="model 'cnn' needs images, 'digits' has none"):
        build(Config(model="cnn"), replace(load_digits(), image=()), generator)
    with pytest.raises(ValueError, match="depth must be 6n \\+ 4"):
        WideResNet(depth=15)


def test_sizes_of_the_networks() -> None:
    # WRN-16-4 has 2.7 M parameters (Zagoruyko and Komodakis 2016, Table 4).
    assert sum(p.numel() for p in WideResNet().parameters()) == 2_748_890
    assert WideResNet(width=8)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
