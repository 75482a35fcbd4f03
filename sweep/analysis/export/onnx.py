"""An exported network as ONNX, preprocessing and normalisation inside, checked against the network it was made of."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from sweep.configuration import TrialConfig
from sweep.datasets import ImageShape
from sweep.errors import StudyError
from sweep.models.network import Network
from sweep.seeding import generator

FILE_NAME = "model.onnx"
_IMAGES = 64  # that both answer
_AGREEMENT = 1e-4  # largest difference of logits, as a share of the largest logit: float32's sums in another order


def write(network: Network, config: TrialConfig, shape: ImageShape, path: Path) -> str:
    """Write the network for any number of images, and ask both; a sentence that says how far their logits differ.

    Raises StudyError where it cannot be exported, or where it does not do what the network does.
    """
    if network.draws:
        raise _not_exported(config, "it is random at test, and the draws that it was judged by are torch's own")
    if network.precision != "float32":
        raise _not_exported(config, f"its layers run in {network.precision}, which ONNX's runtime lacks on CPUs")
    try:
        import onnxruntime  # noqa: PLC0415  # the extra `export`
        import onnxscript  # noqa: F401, PLC0415
    except ImportError as error:
        raise StudyError(f"--onnx needs {error.name}: pip install 'robust-sweep[export]'") from None
    size = (_IMAGES, shape.channels, *shape.size)
    images = torch.randint(256, size, generator=generator(config.seed, "onnx")) / 255
    _convert(network, config, images[:2], path)  # a batch of one would be taken for a fixed size
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answered,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        logits = network(images)
    difference, scale = float((torch.from_numpy(answered) - logits).abs().max()), float(logits.abs().max())
    if not difference <= _AGREEMENT * scale:
        reason = f"its logits on {_IMAGES} random images, of up to {scale:.3g}, differ by {difference:.2g}"
        raise _not_exported(config, f"{reason}, as where rounding inside (JPEG's) makes steps of the last digits")
    return (
        f"`{FILE_NAME}` is the same for ONNX's runtimes (input `images`, output `logits`): on {_IMAGES} random images "
        f"the largest difference between their logits, of up to {scale:.3g}, is {difference:.2g}."
    )


def _convert(network: Network, config: TrialConfig, images: torch.Tensor, path: Path) -> None:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's exporter warns of its own future
            program: Any = torch.onnx.export(
                network,
                (images,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("images")},),
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
            program.save(path, external_data=False)
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise _not_exported(config, cause) from error


def _not_exported(config: TrialConfig, reason: str) -> StudyError:
    network = f"{config.model.name} with {config.defense.name}"
    return StudyError(f"{network} cannot be exported to ONNX: {reason}; without --onnx it is taken away all the same")
