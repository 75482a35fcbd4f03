from sweep.datasets.base import Dataset, ImageShape, NamedDataset, Split, Splits, data_directory
from sweep.registry import import_all

import_all(__name__, __path__)

__all__ = ["Dataset", "ImageShape", "NamedDataset", "Split", "Splits", "data_directory"]
