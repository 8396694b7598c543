"""The built-in data set: the ten hiragana of Kuzushiji-MNIST written with a simulated brush, no download.

Each class has one or more written forms, given as strokes. A sample jitters the strokes' control points, writes
smooth curves through them, slants, turns, scales, shifts and bends the whole, and lays down ink along it with a
brush whose width follows the pressure: heavy where a stroke begins, thin where it is quick, tapering at its end.
What is drawn of a sample as a whole (not the jitter of its points) is known as its factors of variation.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from .drawn import Drawn
from .sources import Split

__all__ = ["Glyphs"]

Stroke = tuple[tuple[float, float], ...]
Form = tuple[Stroke, ...]

# Control points of the strokes, in hundredths of the writing square, x to the right and y downwards. The forms
# after a class's first are running hands or the older signs that live on in kuzushiji.
FORMS: dict[str, tuple[Form, ...]] = {
    "o": (
        (
            ((16, 34), (36, 32), (58, 27)),
            ((37, 11), (38, 42), (37, 68), (29, 84), (18, 80), (19, 67), (38, 53), (62, 49), (80, 60), (78, 78), (56, 90)),
            ((69, 21), (78, 27), (86, 37)),
        ),
        (
            ((17, 34), (40, 30), (50, 24), (40, 14), (37, 46), (33, 76), (21, 80), (24, 64), (52, 50), (74, 54), (78, 72),
             (60, 87)),
            ((70, 22), (84, 36)),
        ),
    ),
    "ki": (
        (
            ((24, 29), (48, 26), (74, 19)),
            ((21, 47), (48, 43), (79, 36)),
            ((42, 8), (50, 28), (60, 48), (71, 64)),
            ((28, 70), (33, 82), (48, 90), (70, 88)),
        ),
        (
            ((22, 28), (50, 25), (76, 18)),
            ((20, 45), (50, 42), (80, 35)),
            ((44, 7), (54, 30), (68, 59), (48, 57), (29, 66), (28, 80), (46, 90), (72, 87)),
        ),
    ),
    "su": (
        (
            ((10, 29), (46, 27), (90, 25)),
            ((57, 7), (58, 30), (57, 48), (48, 60), (36, 57), (37, 45), (50, 43), (59, 56), (56, 74), (40, 94)),
        ),
        (
            ((18, 30), (44, 28), (72, 20), (54, 34), (42, 52), (50, 58), (60, 50), (52, 42), (50, 62), (46, 80), (34, 95)),
        ),
    ),
    "tsu": (
        (((10, 39), (34, 29), (62, 25), (83, 35), (86, 53), (72, 71), (50, 81), (32, 84)),),
        (((20, 26), (25, 34), (29, 44)), ((47, 20), (52, 29), (55, 38)), ((84, 20), (79, 46), (62, 68), (36, 86))),
    ),
    "na": (
        (
            ((12, 27), (32, 26), (54, 21)),
            ((37, 7), (33, 27), (23, 46), (11, 61)),
            ((66, 19), (76, 25), (87, 37)),
            ((63, 41), (64, 58), (63, 76), (52, 88), (36, 85), (34, 75), (48, 70), (66, 77), (86, 91)),
        ),
        (
            ((18, 26), (42, 24), (54, 18), (38, 36), (20, 56), (44, 46), (70, 34), (66, 54), (58, 76), (42, 88), (38, 76),
             (56, 72), (82, 90)),
        ),
    ),
    "ha": (
        (
            ((19, 12), (13, 38), (13, 66), (20, 88)),
            ((40, 33), (62, 32), (90, 28)),
            ((66, 9), (67, 36), (67, 66), (60, 84), (44, 86), (41, 76), (54, 70), (70, 76), (90, 89)),
        ),
        (((38, 22), (32, 44), (22, 64), (10, 80)), ((56, 18), (66, 42), (78, 62), (93, 78))),
    ),
    "ma": (
        (
            ((20, 25), (48, 25), (80, 21)),
            ((22, 43), (48, 43), (78, 39)),
            ((50, 6), (51, 32), (52, 64), (46, 84), (30, 88), (24, 78), (38, 70), (58, 76), (82, 92)),
        ),
        (
            ((20, 24), (48, 23), (76, 18), (52, 32), (28, 46), (54, 42), (74, 40), (54, 56), (50, 74), (36, 86), (28, 76),
             (48, 72), (82, 90)),
        ),
    ),
    "ya": (
        (
            ((8, 48), (34, 37), (64, 26), (83, 31), (83, 47), (70, 56), (57, 54)),
            ((51, 8), (56, 15), (60, 23)),
            ((27, 22), (36, 46), (46, 72), (55, 94)),
        ),
        (((8, 52), (30, 40), (60, 26), (84, 32), (80, 50), (60, 54), (42, 30), (32, 16), (40, 46), (54, 92)),),
    ),
    "re": (
        (
            ((28, 7), (29, 36), (28, 66), (28, 94)),
            ((9, 34), (24, 31), (37, 28), (26, 50), (8, 76), (34, 50), (56, 28), (68, 32), (65, 54), (66, 76), (77, 84),
             (94, 70)),
        ),
        (
            ((30, 8), (28, 50), (27, 92)),
            ((12, 38), (36, 30), (20, 62), (44, 40), (66, 24), (70, 42), (56, 62), (44, 84), (60, 88), (92, 76)),
        ),
    ),
    "wo": (
        (
            ((17, 25), (46, 24), (78, 19)),
            ((47, 6), (40, 26), (28, 46), (15, 61), (32, 49), (48, 47), (55, 58), (55, 74)),
            ((86, 42), (64, 51), (42, 64), (36, 79), (50, 89), (84, 88)),
        ),
        (
            ((20, 24), (50, 22), (70, 16), (46, 34), (20, 58), (40, 47), (54, 58), (66, 52), (82, 42), (56, 56), (38, 72),
             (46, 87), (84, 88)),
        ),
    ),
}  # fmt: skip

POINT_SPACING = 0.4  # pixels between brush marks along a stroke, close enough to be seen as a line
CHUNK = 500  # samples drawn at a time, to bound memory


class Glyphs(Drawn):
    """Ten hiragana (o ki su tsu na ha ma ya re wo), grey on black like Kuzushiji-MNIST, the same for the same seed.

    Classes are equally frequent, to within one image. A class's forms are equally likely.

    The factors of an image are, in this order: `form`, its number among the forms of all classes; `thickness`, the
    brush's mean radius in 28ths of the image; `slant`, the shear, positive where the top leans to the left; `angle`, the
    turn in radians, clockwise; `width` and `height`, factors by which it is stretched; `shift_x` and `shift_y`, the
    distance of its middle from that of the writing square, in hundredths of the square, to the right and downwards.

    Args:
        train_size: number of training images.
        test_size: number of test images; other samples than the training images'.
        image_size: height and width in pixels.
        seed: determines every image.

    Raises:
        ValueError: for a size below 1 (below 8 for `image_size`).
    """

    class_names = tuple(FORMS)
    factor_names = ("form", "thickness", "slant", "angle", "width", "height", "shift_x", "shift_y")
    categorical_factors = ("form",)

    def __init__(self, train_size: int = 12_000, test_size: int = 2_000, image_size: int = 28, seed: int = 0) -> None:
        super().__init__(_write, train_size, test_size, image_size, seed)


@lru_cache(maxsize=2)  # the jobs of a sweep share a process
def _write(count: int, size: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(FORMS)
    choice = torch.rand(count, generator=generator)
    images = torch.empty(count, size, size, dtype=torch.uint8)
    factors = torch.empty(count, len(Glyphs.factor_names))
    before = 0  # forms of the classes before
    for label, forms in enumerate(FORMS.values()):
        form_of = (choice * len(forms)).long()
        for number, form in enumerate(forms):
            members = ((labels == label) & (form_of == number)).nonzero().squeeze(1)
            for chunk in members.split(CHUNK) if len(members) else ():
                images[chunk], factors[chunk, 1:] = _draw(form, len(chunk), size, generator)
                factors[chunk, 0] = before + number
        before += len(forms)
    order = torch.randperm(count, generator=generator)
    return Split(images[order].unsqueeze(1), labels[order], factors[order])


def _draw(form: Form, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` samples of a form: uint8 `(count, size, size)`; and their factors but the form `(count, 7)`."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    scale = size * 0.86 / 100
    radius = (1.2 * (0.18 * normal(count, 1)).exp()).clamp(0.75, 1.75)  # of the brush, in 28ths of the image
    thickness = size / 28 * radius  # in pixels
    curves, radii = [], []
    for stroke in form:
        template = torch.tensor(stroke, dtype=torch.float32)
        control = template + 2.2 * normal(count, len(stroke), 2)
        length = template.diff(dim=0).norm(dim=-1).sum().item()
        marks = max(4, round(length * scale / POINT_SPACING))
        curves.append(_spline_basis(len(stroke), marks) @ control)
        radii.append(thickness * _pressure(marks, length, normal(count, 3)))
    posed, pose = _pose(torch.cat(curves, dim=1), normal)
    ink = (0.93 + 0.06 * normal(count, 1)).clamp(0.75, 1.0)
    return _ink(posed * scale + size / 2, torch.cat(radii, dim=1), ink, size), torch.cat([radius, pose], dim=1)


def _spline_basis(controls: int, marks: int) -> Tensor:
    """Weights `(marks, controls)` of a Catmull-Rom curve through its control points, at equal parameter steps."""
    position = torch.linspace(0, controls - 1, marks)
    segment = position.floor().clamp(max=controls - 2)
    t = (position - segment).unsqueeze(1)
    # Columns: the points before, at the start of, at the end of, and after the segment.
    weights = 0.5 * torch.cat(
        [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2], dim=1
    )
    index = segment.long().unsqueeze(1) + torch.arange(-1, 3)
    return torch.zeros(marks, controls).scatter_add_(1, index.clamp(0, controls - 1), weights)


def _pressure(marks: int, length: float, noise: Tensor) -> Tensor:
    """Width of the brush along a stroke, relative to its mean, `(count, marks)`."""
    t = torch.linspace(0, 1, marks)
    swell, slope, phase = (0.16 * noise[:, :1], 0.22 * noise[:, 1:2], math.tau * noise[:, 2:])
    entry = 0.3 * (-t * length / 9).exp()
    taper = 0.45 * (-(1 - t) * length / 10).exp()
    waves = swell * torch.sin(math.tau * t * length / 70 + phase)
    return (0.95 + entry - taper + waves + slope * (0.5 - t)).clamp(min=0.35)


def _pose(points: Tensor, normal: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Points `(count, marks, 2)` of the writing square, bent and set askew, about the origin.

    Also returns slant, angle, width, height and shift `(count, 6)`.
    """
    count = len(points)
    centred = points - 50
    # A smooth elastic deformation: a few waves of random direction, each displacing x and y.
    for _ in range(3):
        wave = normal(count, 1, 2) * 0.035
        phase = math.tau * normal(count, 1, 1)
        centred = centred + 2.2 * normal(count, 1, 2) * torch.sin((centred * wave).sum(-1, keepdim=True) + phase)
    angle, slant = 0.07 * normal(count), 0.13 * normal(count) - 0.03
    width, height = (0.09 * normal(2, count) - 0.02).exp()
    cosine, sine = angle.cos(), angle.sin()
    pose = torch.stack(
        [width * cosine, height * (slant * cosine - sine), width * sine, height * (slant * sine + cosine)], dim=1
    ).view(count, 2, 2)
    # Writers centre what they have written, more or less.
    middle = (centred.amin(1, keepdim=True) + centred.amax(1, keepdim=True)) / 2
    shift = 2.0 * normal(count, 1, 2)
    factors = torch.cat([torch.stack([slant, angle, width, height], dim=1), shift.squeeze(1)], dim=1)
    return (centred - middle) @ pose.transpose(1, 2) + shift, factors


def _ink(points: Tensor, radii: Tensor, ink: Tensor, size: int) -> Tensor:
    """Round brush marks at points `(count, marks, 2)`, in pixels, with soft edges: uint8 `(count, size, size)`."""
    count = len(points)
    reach = math.ceil(radii.max().item() + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    margin = reach + 1
    canvas_size = size + 2 * margin
    near = points.floor().long().clamp(-1, size)
    canvas = torch.zeros(count, canvas_size * canvas_size)
    for dy in offsets:
        for dx in offsets:
            pixel = near + torch.stack([dx, dy])
            distance = (pixel + 0.5 - points).norm(dim=-1)
            value = (radii + 0.5 - distance).clamp(0, 1)
            index = (pixel[..., 1] + margin) * canvas_size + pixel[..., 0] + margin
            canvas.scatter_reduce_(1, index, value, "amax")
    drawn = canvas.view(count, canvas_size, canvas_size)[:, margin:-margin, margin:-margin]
    return (drawn * ink.unsqueeze(-1) * 255).round().to(torch.uint8)
