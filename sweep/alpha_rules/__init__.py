from sweep.alpha_rules.base import AlphaRule, MeasuredAlphaRule, Measurement, NamedAlphaRule
from sweep.registry import import_all

import_all(__name__, __path__)

__all__ = ["AlphaRule", "MeasuredAlphaRule", "Measurement", "NamedAlphaRule"]
