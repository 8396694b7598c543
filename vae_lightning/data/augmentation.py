"""Random changes of training images, drawn anew for each image of each batch."""

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["moved"]


def moved(images: Tensor, horizontal_flip: bool, shift: int) -> Tensor:
    """Mirrors images with probability one half, and moves them by whole pixels.

    Args:
        images: `(B, C, H, W)`.
        horizontal_flip: whether to mirror.
        shift: maximum number of pixels up or down, and to a side; pixels of the border are repeated.
    """
    # One row per image, so that several devices can draw for the whole batch and keep their own rows.
    drawn = torch.rand(len(images), 3, device=images.device)
    if horizontal_flip:
        images = torch.where((drawn[:, 0] < 0.5)[:, None, None, None], images.flip(-1), images)
    if shift:
        height, width = images.shape[-2:]
        offsets = (drawn[:, 1:] * (2 * shift + 1)).long()  # from 0 to 2 * shift
        rows = offsets[:, :1] + torch.arange(height, device=images.device)
        columns = offsets[:, 1:] + torch.arange(width, device=images.device)
        padded = pad(images, [shift] * 4, mode="replicate").movedim(1, -1)
        each = torch.arange(len(images), device=images.device)[:, None, None]
        images = padded[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    return images
