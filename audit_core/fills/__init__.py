"""What stands in a removed pixel. The imports below are in the order of the menus; a new fill is one import more."""

# isort: off
from audit_core.fills.base import FILLS, Fill, FillContext
from audit_core.fills.constant import DatasetMean, ImageMean, Zero, ZeroNormalised
from audit_core.fills.blur import Blur
from audit_core.fills.noise import GaussianNoise, Histogram, Shuffle, UniformNoise
from audit_core.fills.reference import OtherImage, Reference
from audit_core.fills.inpainting import InpaintNavierStokes, InpaintTelea
from audit_core.fills.imputation import Road
# isort: on

__all__ = [
    "FILLS",
    "Blur",
    "DatasetMean",
    "Fill",
    "FillContext",
    "GaussianNoise",
    "Histogram",
    "ImageMean",
    "InpaintNavierStokes",
    "InpaintTelea",
    "OtherImage",
    "Reference",
    "Road",
    "Shuffle",
    "UniformNoise",
    "Zero",
    "ZeroNormalised",
]
