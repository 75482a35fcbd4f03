from sweep.attacks.base import Adversary, Attack, NamedAttack, Objective, cross_entropy, margin, misclassified
from sweep.registry import import_all

import_all(__name__, __path__)

__all__ = ["Adversary", "Attack", "NamedAttack", "Objective", "cross_entropy", "margin", "misclassified"]
