"""Callbacks that print, draw, measure and save during a run."""

from .checkpoints import Checkpoints
from .curves import Curves
from .final_figures import FinalFigures
from .latent_explorer import LatentExplorer
from .loss_lines import LossLines
from .measurements import Measurements
from .moving_average import MovingAverage
from .sample_grids import SampleGrids
from .stopwatch import Stopwatch
from .tensorboard_views import TensorBoardViews

__all__ = [
    "Checkpoints",
    "Curves",
    "FinalFigures",
    "LatentExplorer",
    "LossLines",
    "Measurements",
    "MovingAverage",
    "SampleGrids",
    "Stopwatch",
    "TensorBoardViews",
]
