from sweep.registry import import_all
from sweep.threat_models.base import NamedThreatModel, ThreatModel

import_all(__name__, __path__)

__all__ = ["NamedThreatModel", "ThreatModel"]
