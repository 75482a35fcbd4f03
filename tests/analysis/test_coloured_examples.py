"""Adversarial examples of coloured images, as the report shows them: CIFAR-10's, through a network that was trained."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_study import searching, tiny

from sweep.analysis import kept, probes
from sweep.analysis.report import examples
from sweep.domains import Uniform
from sweep.orchestration import in_process
from sweep.search_space import OneOf

DATA = Path(os.environ.get("SWEEP_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data")
CIFAR10 = {
    "name": "image_parquet",
    "train": "cifar10/cifar10_jpeg_test.parquet",  # the smaller file: this is about pictures, not about figures
    "test_size": 5_000,
    "image_column": "jpeg",
    "label_column": "label",
    "validation_size": 100,
    "train_size": 500,
}
EPSILON = 16 / 255


def pixels(picture: str) -> NDArray[np.int_]:
    """A data URI as [H, W, 3] in 0 to 255."""
    content = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@pytest.mark.slow
def test_colours_are_the_images_own_and_what_was_done_is_told_by_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DATA / str(CIFAR10["train"])).exists():
        pytest.skip(f"{CIFAR10['train']} is not in {DATA}")
    monkeypatch.setenv("SWEEP_DATA_DIR", str(DATA))
    judged = {"name": "linf", "epsilon": EPSILON}
    trained = OneOf(standard={}, adversarial_training={"epsilon": Uniform(0.01, 0.1), "attack": "fgsm"})
    space = {"dataset": CIFAR10, "threat_model": judged, "defense": trained, "epochs": 1}
    with searching(tmp_path, tiny(space=space, budget={"trials": 1})) as search:
        in_process.run(search)
        chosen = kept.of_search(search.folder, search.ledger)
    (probe,) = probes.probe(tmp_path, chosen, measure=True, say=lambda _: None)[0].values()
    (exhibit,) = examples.exhibits({0: [probe]})
    images = [np.round(255 * image.movedim(0, 2).numpy()).astype(int) for image in probe.originals]
    colours: list[int] = []
    for strip in exhibit.strips:
        original, done, adversarial, saliency = map(pixels, strip.pictures)
        assert original.shape == done.shape == adversarial.shape == saliency.shape == (32, 32, 3)
        assert any(abs(original - image).max() <= 1 for image in images)  # half precision
        colours.append((original.max(2) - original.min(2)).max())
        change = adversarial - original
        assert 0 < abs(change).max() <= round(255 * EPSILON) + 1
        raised, lowered = change.max(2), -change.min(2)
        clear = abs(raised - lowered) >= 3  # beyond what rounding turns
        is_orange = done[..., 0] > done[..., 2]
        assert clear.any() and (is_orange == (raised > lowered))[clear].all()
    assert max(colours) > 50, "no image has colours"
