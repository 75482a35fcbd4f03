from sweep.models.base import Model, NamedModel
from sweep.registry import import_all

import_all(__name__, __path__)

__all__ = ["Model", "NamedModel"]
