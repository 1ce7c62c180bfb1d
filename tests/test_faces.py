"""examples/faces.py, end to end on made-up faces in the layouts of CelebA and of FFHQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import collapsekit as ck
from examples import faces

Image = pytest.importorskip("PIL.Image")
Draw = pytest.importorskip("PIL.ImageDraw")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def face(rng: np.random.Generator, width: int, height: int):
    """A head on a background, two eyes and a mouth, every one a little different."""
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(20, 120, 3)))
    draw = Draw.Draw(picture)
    x, y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.58)
    a, b = width * rng.uniform(0.2, 0.3), height * rng.uniform(0.25, 0.35)
    skin = rng.integers(130, 240)
    draw.ellipse((x - a, y - b, x + a, y + b), fill=(int(skin), int(skin * 0.8), int(skin * 0.7)))
    for side in (-1, 1):
        eye = x + side * a * 0.45
        draw.ellipse((eye - a / 8, y - b / 3, eye + a / 8, y - b / 6), fill=(20, 20, 60))
    smile = b * rng.uniform(0.05, 0.2)
    draw.ellipse((x - a / 3, y + b / 2 - smile, x + a / 3, y + b / 2 + smile), fill=(160, 30, 50))
    return picture


def celeba(folder: Path, count: int) -> Path:
    """img_align_celeba/000001.jpg ..., 178 x 218."""
    rng, root = np.random.default_rng(0), folder / "img_align_celeba"
    root.mkdir()
    for i in range(1, count + 1):
        face(rng, 178, 218).save(root / f"{i:06d}.jpg", quality=90)
    return root


def ffhq(folder: Path, count: int, side: int = 128, shelf: int = 20) -> Path:
    """00000/00000.png ..., shelves of a thousand (here of twenty)."""
    rng, root = np.random.default_rng(1), folder / "thumbnails128x128"
    for i in range(count):
        place = root / f"{i // shelf * shelf:05d}"
        place.mkdir(parents=True, exist_ok=True)
        face(rng, side, side).save(place / f"{i:05d}.png")
    return root


@pytest.mark.parametrize(
    "layout, options",
    [(celeba, ["--size", "32", "--crop", "148"]), (ffhq, ["--size", "20"])],
    ids=["celeba", "ffhq"],
)
def test_trained_and_audited_end_to_end(layout, options, tmp_path, capsys) -> None:
    root, out = layout(tmp_path, 60), tmp_path / "report"
    small = ["--latent", "6", "--width", "8", "--batch", "16", "--epochs", "2", "--beta", "0.5"]
    audits = faces.main([str(root), *options, *small, "--out", str(out)])
    assert list(audits) == ["vanilla", "lr"]
    for name, audit in audits.items():
        assert audit.provenance["n"] == 6
        assert audit.provenance["likelihood"] == ["gaussian", 0.5**0.5]
        assert audit.provenance["beta"] == 0.5
        assert len(audit.dimensions) == 6
        assert not audit.skipped
        assert "label" not in audit.samples  # FFHQ's shelves are no classes
        assert ck.load(out / f"{name}.audit").verdict == audit.verdict
        assert (out / f"{name}.html").stat().st_size > 10_000
        # The weights that were audited: a stranger can load them again.
        weights = torch.load(out / f"{name}.pt", weights_only=True)
        faces.FaceVAE(int(options[1]), 6, 8).load_state_dict(weights)
    page = (out / "compare.html").read_text("utf-8")
    assert "vanilla" in page
    assert str(tmp_path) not in page
    told = capsys.readouterr().out
    assert "vanilla epoch 2" in told
    assert "lr epoch 2" in told


def test_training_reconstructs_better_than_the_mean_face(tmp_path) -> None:
    data = faces.Faces(ffhq(tmp_path, 96, side=40), size=16)
    setting = faces.Setting(latent=8, width=8, beta=0.1, epochs=50, batch=16, rate=4e-3)
    x = torch.stack([data[i] for i in range(len(data))])
    images = list(x)  # each image read once, not fifty times
    for repaired in (False, True):
        vae = faces.train(images, 16, setting, repaired=repaired)
        with torch.no_grad():
            error = (vae.decode(vae.encode(x)[0]) - x).square().mean()
        assert not vae.training
        assert error < 0.85 * (x.mean(0) - x).square().mean()


@pytest.mark.parametrize("size", [8, 33, 50, 64, 128])
def test_any_size_goes_in_and_comes_out(size) -> None:
    vae = faces.FaceVAE(size, latent=5, width=4)
    x = torch.rand(2, 3, size, size)
    mean, scale = vae.encode(x)
    assert mean.shape == scale.shape == (2, 5)
    assert bool((scale > 0).all())
    assert vae.decode(mean).shape == x.shape


def test_middle_square_of_any_shape_and_kind(tmp_path) -> None:
    wide = np.zeros((40, 100), np.uint8)
    wide[:, 30:70] = 255  # the middle square, and nothing else, is white
    Image.fromarray(wide).save(tmp_path / "grey.png")
    tall = np.zeros((90, 30, 4), np.uint8)
    tall[30:60] = (255, 0, 0, 255)
    Image.fromarray(tall).save(tmp_path / "transparent.png")
    data = faces.Faces(tmp_path, size=16)
    assert len(data) == 2
    assert data[0].dtype == torch.float32
    assert data[0].shape == (3, 16, 16)
    assert bool((data[0] == 1.0).all())
    assert data[1].mean((1, 2)).tolist() == [1.0, 0.0, 0.0]
    # A crop smaller than the image keeps its middle, a larger one is the whole square.
    assert faces._middle((178, 218), 148) == (15, 35, 163, 183)
    assert faces._middle((178, 218), 500) == (0, 20, 178, 198)
    assert faces._middle((128, 128), None) == (0, 0, 128, 128)


def test_order_is_by_name_and_stray_files_are_left_out(tmp_path) -> None:
    root = ffhq(tmp_path, 30, side=16)
    (root / "LICENSE.txt").write_text("terms")
    (root / "00000" / "._00003.png").write_bytes(b"a resource fork")
    data = faces.Faces(root, size=8)
    assert [name.name for name in data.names] == [f"{i:05d}.png" for i in range(30)]


def test_errors_name_the_file_and_not_this_machine(tmp_path) -> None:
    with pytest.raises(ck.InputError, match="there are no images"):
        faces.Faces(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 cut short")
    with pytest.raises(ck.InputError, match=r"broken\.jpg cannot be read") as caught:
        faces.Faces(tmp_path)[0]
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(SystemExit):
        faces.main([str(tmp_path), "--out", str(tmp_path / "out")])
