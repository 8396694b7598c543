"""What is printed, drawn, measured and kept during a run, and when: a callback each."""

from .checkpoints import Checkpoints
from .curves import Curves
from .final_figures import FinalFigures
from .latent_explorer import LatentExplorer
from .loss_lines import LossLines
from .measurements import Measurements
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
    "SampleGrids",
    "Stopwatch",
    "TensorBoardViews",
]
