from sweep.defenses.base import AttackedDefense, Clock, Defense, Losses, NamedDefense, Step
from sweep.registry import import_all

import_all(__name__, __path__)

__all__ = ["AttackedDefense", "Clock", "Defense", "Losses", "NamedDefense", "Step"]
