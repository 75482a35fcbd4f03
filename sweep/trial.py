"""One trial: a configuration's components brought together, trained and judged. Configuration -> figures and weights.

A trial keeps its own folder: `config.json`, `checkpoint.pt` (last and best network, optimizer, figures so far) and,
when it completes, `best.safetensors`, `last.safetensors`, `verdicts.safetensors` and `metrics.json`. It knows nothing
of who runs it. What it finds there and cannot use, as a damaged checkpoint or another trial's files, it sets aside, and
begins anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweep import checkpoint
from sweep.alpha_rules import Measurement
from sweep.configuration import TrialConfig, fingerprint
from sweep.datasets import ImageShape, Split, Splits
from sweep.errors import CheckpointError, Collapsed, ConfigurationError
from sweep.evaluation import Verdicts
from sweep.figures import refuse_non_finite
from sweep.judgement import judged, tested
from sweep.models.batch_norm import split_batch_norm
from sweep.models.network import Network
from sweep.objective import Rank
from sweep.resources import choose_device, keep_freed_memory, reset_peak_memory
from sweep.seeding import layer_randomness
from sweep.training import EpochResult, Plan, State, train
from sweep.validity import IMAGES, Known, Subject, Validity, collapse, examine

CHECKPOINT = "checkpoint.pt"
CONFIG = "config.json"
METRICS = "metrics.json"  # the last file that a completed trial writes
VERDICTS = "verdicts.safetensors"  # booleans [N] by attack, of the test split's examples in the source's order
WEIGHTS = {"best": "best.safetensors", "last": "last.safetensors"}
LEFT = (CONFIG, METRICS, *WEIGHTS.values(), VERDICTS)


class Trial:
    """A configuration being trained, from its checkpoint where its folder holds one.

    `note` is a sentence where the folder held what had to be set aside, else None.
    """

    network: Network
    plan: Plan
    state: State
    results: list[EpochResult]
    best: EpochResult | None
    best_weights: dict[str, Tensor]

    def __init__(self, config: TrialConfig, folder: Path | None = None, *, checkpoint_seconds: float = 0.0) -> None:
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        self.config = config
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.device = choose_device(config.device)
        reset_peak_memory(self.device)
        splits = config.dataset.load()
        if problems := config.unanswerable(splits.classes):
            raise ConfigurationError("trial", problems)
        self.validation = splits.validation.to(self.device)
        self.shape = splits.shape
        self.validity: Validity | None = None  # once finished
        self.files: dict[str, str] = {}  # once finished: the SHA-256 of each file that it left in its folder
        self.note: str | None = None
        self._saved = time.monotonic()
        self._begin_anew(splits)
        if folder is not None:
            self._go_on(folder, splits)

    def run(self, reported: int = 0) -> Iterator[EpochResult]:
        """The epochs after `reported`: those that a checkpoint already holds, then the rest, trained one by one.

        A due checkpoint is written before its result is given away. Where checkpoints are rarer than epochs, an epoch
        that was reported and not saved is trained again, to the same figures, and not given twice.

        Raises Collapsed after an epoch of catastrophic overfitting, where the configuration says stop.
        """
        yield from [result for result in self.results if result.epoch > reported]
        self._refuse_collapse()
        for result in train(self.plan, self.state):
            self._look_for_collapse(result)
            self.results.append(result)
            if self.best is None or self._rank(result) > self._rank(self.best):
                self.best, self.best_weights = result, _copy(self.network)
            due = time.monotonic() - self._saved >= self.checkpoint_seconds
            if due or result.epoch == self.config.epochs:
                self.save()
            if result.epoch > reported:
                yield result
            self._refuse_collapse()

    @property
    def selected(self) -> EpochResult:
        """The epoch that counts as the trial's, as the configuration declares."""
        chosen = self.best if self.config.select == "best" else self.results[-1]
        assert chosen is not None
        return chosen

    def finish(self) -> dict[str, float]:
        """Attack the selected network with every attack of the configuration on the validation split, ask whether the
        result can be believed, and write weights and figures.

        Raises Diverged where a figure is not finite, as where an attack drives the logits to infinity.
        """
        last = _copy(self.network)
        selected = self.best_weights if self.config.select == "best" else last
        self.network.load_state_dict(selected)
        config = self.config
        verdicts, figures = judged(config, self.network, self.validation)
        standard = config.epochs * len(self.plan.train)
        figures["overhead/gradient_evaluations"] = self.state.gradient_evaluations / standard
        if config.test_attacks:
            opened, verdict = tested(config, self.network, self.device)
            figures |= opened
            if self.folder is not None:
                checkpoint.save_weights(self.folder / VERDICTS, verdict)
        refuse_non_finite(figures, "when attacked at the end")
        self.validity = self._examine(verdicts)
        refuse_non_finite(self.validity.figures, "in the validity checks")
        self.network.load_state_dict(last)
        if self.folder is not None:
            about = self.shape.metadata()
            checkpoint.save_weights(self.folder / WEIGHTS["best"], self.best_weights, about)
            checkpoint.save_weights(self.folder / WEIGHTS["last"], last, about)
            checkpoint.write_json(self.folder / METRICS, self.summary(figures))
            there = [self.folder / name for name in LEFT]
            self.files = {path.name: checkpoint.digest(path) for path in there if path.exists()}
        return figures

    def summary(self, final: dict[str, float]) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {
            "fingerprint": self.config.fingerprint,
            "selected_epoch": self.selected.epoch,
            "selected": self.selected.metrics,
            "last": self.results[-1].metrics,
            "final": final,
            "validity": self.validity.to_json() if self.validity else None,
        }

    def save(self) -> None:
        """Write the checkpoint, where the trial has a folder."""
        if self.folder is None:
            return
        self._saved = time.monotonic()
        checkpoint.save(
            self.folder / CHECKPOINT,
            {
                "fingerprint": self.config.fingerprint,
                "network": self.network.state_dict(),
                "optimizer": self.plan.optimizer.state_dict(),
                "gradient_evaluations": self.network.gradient_evaluations,
                "state": asdict(self.state),
                "results": [asdict(result) for result in self.results],
                "best": asdict(self.best) if self.best else None,
                "best_weights": self.best_weights,
            },
        )

    def _begin_anew(self, splits: Splits) -> None:
        self.network = build_network(self.config, splits).to(self.device)
        self.plan = self._plan(splits)
        self.state = State()
        self.results = []
        self.best = None
        self.best_weights = {}

    def _go_on(self, folder: Path, splits: Splits) -> None:
        """Take up the folder's checkpoint. What cannot be used is renamed, not deleted: somebody may want to know."""
        if holds_another(folder, self.config):
            self.note = f"{folder} held another configuration's files, which are now in {checkpoint.set_aside(folder)}"
        path = folder / CHECKPOINT
        if path.exists():
            try:
                return self._restore(path)
            except CheckpointError as error:
                self.note = f"{error}; it is now {checkpoint.set_aside(path).name}, and the trial begins anew"
                self._begin_anew(splits)  # half of it may have been adopted
        return checkpoint.write_json(folder / CONFIG, self.config.to_json())

    def _restore(self, path: Path) -> None:
        saved = checkpoint.load(path)
        if saved.get("fingerprint") != self.config.fingerprint:
            raise CheckpointError(
                f"{path} belongs to another configuration ({saved.get('fingerprint')}, not {self.config.fingerprint})"
            )
        try:
            self._adopt(saved)
        except (KeyError, TypeError, RuntimeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(f"{path} lacks what a checkpoint holds ({reason})") from None

    def _adopt(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.plan.optimizer.load_state_dict(saved["optimizer"])
        self.network.gradient_evaluations = saved["gradient_evaluations"]
        history = [Measurement(**values) for values in saved["state"].pop("history")]
        self.state = State(history=history, **saved["state"])
        self.results = [EpochResult(**result) for result in saved["results"]]
        self.best = EpochResult(**saved["best"]) if saved["best"] else None
        self.best_weights = saved["best_weights"]

    def _look_for_collapse(self, result: EpochResult) -> None:
        earlier = [past.metrics for past in self.results]
        gap = collapse.measured_gap(self.config, self.network, self.validation, earlier, result.metrics)
        if gap is not None:
            result.metrics[collapse.METRIC] = gap

    def _refuse_collapse(self) -> None:
        if self.config.catastrophic_overfitting != "stop" or not self.results:
            return
        last = self.results[-1]
        if collapse.is_collapse(last.metrics):
            self.save()
            gap = f"the accuracy under one step is {last.metrics[collapse.METRIC]:.2f} above that under many"
            raise Collapsed(f"catastrophic overfitting in epoch {last.epoch}: {gap}")

    def _examine(self, verdicts: Verdicts) -> Validity:
        config, some = self.config, slice(IMAGES[self.config.validity])
        looked_at = Split(self.validation.images[some], self.validation.labels[some])
        held_out = [self.validation, *([config.dataset.load_test()] if config.test_attacks else [])]
        known = Known(self._built_anew, self.plan.train, held_out)
        return examine(Subject(config, self.network, looked_at, verdicts, self.results, self.selected.epoch, known))

    def _built_anew(self) -> Network:
        """Another network with the weights of this one."""
        network = build_network(self.config, self.shape).to(self.device)
        network.load_state_dict(self.network.state_dict())
        return network

    def _rank(self, result: EpochResult) -> Rank:
        return self.config.objective[0].rank(result.metrics)

    def _plan(self, splits: Splits) -> Plan:
        config = self.config
        return Plan(
            network=self.network,
            optimizer=config.optimizer.build(self.network.parameters()),
            learning_rate=config.optimizer.learning_rate,
            learning_rate_schedule=config.learning_rate_schedule,
            defense=config.defense,
            threat_model=config.threat_model,
            train=splits.train.to(self.device),
            validation=self.validation,
            attacks=config.validation_attacks,
            epochs=config.epochs,
            batch_size=config.batch_size,
            augmentation=config.augmentation,
            validate_every=config.validate_every,
            seed=config.seed,
            device=self.device,
        )


def holds_another(folder: Path, config: TrialConfig) -> bool:
    """Whether a trial of another configuration has worked in the folder."""
    try:
        return fingerprint(json.loads((folder / CONFIG).read_text())) != config.fingerprint
    except FileNotFoundError:
        return False
    except ValueError:  # not JSON, or NaN in it: nothing that a trial wrote
        return True


def build_network(config: TrialConfig, images: Splits | ImageShape) -> Network:
    """The configuration's network for such images, initialised from its seed, on the CPU."""
    with layer_randomness(config.seed, "initialisation"):
        core = config.model.build(images.channels, images.size, images.classes)
    if config.defense.splits_batch_norm:
        core = split_batch_norm(core)
    with layer_randomness(config.seed, "initialisation", "preprocessing"):
        preprocess = config.defense.preprocessor(images.channels)
    mean, std = config.dataset.statistics(images.channels)
    return Network(
        core,
        mean,
        std,
        preprocess=preprocess,
        draws=config.defense.test_draws,
        seed=config.seed,
        precision=config.precision,
        compiles=config.compile,
    )


def _copy(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
