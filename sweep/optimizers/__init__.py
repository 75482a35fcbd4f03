from sweep.optimizers.base import NamedOptimizer, Optimizer, Stepper
from sweep.registry import import_all

import_all(__name__, __path__)

__all__ = ["NamedOptimizer", "Optimizer", "Stepper"]
