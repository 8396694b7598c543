"""The comparison of runs, made from the files in their folders alone."""

# Neither imports PyTorch or pandas before it has something to compare.
from .compare import Comparison, compare
from .console import print_comparison

__all__ = ["Comparison", "compare", "print_comparison"]
