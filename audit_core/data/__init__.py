"""Data sets behind one small interface; importing this registers them all and needs no torch."""

from audit_core.data.base import (
    DATASETS,
    BaseDataset,
    Dataset,
    Source,
    dataset_of,
    format_reference,
    open_image,
    open_split,
    parse_reference,
)
from audit_core.data.cifar10 import Cifar10
from audit_core.data.digits import Digits
from audit_core.data.folder import Folder
from audit_core.data.mnist import Mnist
from audit_core.data.mvtec import Mvtec
from audit_core.data.synthetic import Synthetic
from audit_core.data.wm811k import Wm811k

__all__ = [
    "DATASETS",
    "BaseDataset",
    "Cifar10",
    "Dataset",
    "Digits",
    "Folder",
    "Mnist",
    "Mvtec",
    "Source",
    "Synthetic",
    "Wm811k",
    "dataset_of",
    "format_reference",
    "open_image",
    "open_split",
    "parse_reference",
]
