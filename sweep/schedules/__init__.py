from sweep.registry import import_all
from sweep.schedules.base import NamedSchedule, Schedule

import_all(__name__, __path__)

__all__ = ["NamedSchedule", "Schedule"]
