"""L*a*b* against published values, and against the definitions written out in plain floats."""

import math

import pytest
import torch
from torch import Tensor

from regroup.attacks.colour.cielab import lab_to_rgb, rgb_to_lab

# Published for sRGB under D65 (for instance by B. Lindbloom's calculator), to two digits.
KNOWN = [
    ((1, 1, 1), (100.0, 0.0, 0.0)),
    ((0, 0, 0), (0.0, 0.0, 0.0)),
    ((1, 0, 0), (53.24, 80.09, 67.20)),
    ((0, 1, 0), (87.73, -86.18, 83.18)),
    ((0, 0, 1), (32.30, 79.19, -107.86)),
    ((1, 1, 0), (97.14, -21.55, 94.48)),
    ((0, 1, 1), (91.11, -48.09, -14.13)),
    ((1, 0, 1), (60.32, 98.23, -60.82)),
    ((0.5, 0.5, 0.5), (53.39, 0.0, 0.0)),
]


def colour(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def by_definition(red: float, green: float, blue: float) -> list[float]:
    """IEC 61966-2-1, then CIE 15, with its 0.008856 and 7.787 of four digits."""

    def linear(v: float) -> float:
        return v / 12.92 if v <= 0.04045 else math.pow((v + 0.055) / 1.055, 2.4)

    def f(t: float) -> float:
        return math.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116

    r, g, b = linear(red), linear(green), linear(blue)
    x = 0.4124564 * r + 0.3575761 * g + 0.1804375 * b
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = 0.0193339 * r + 0.1191920 * g + 0.9503041 * b
    fx, fy, fz = f(x / 0.95047), f(y), f(z / 1.08883)
    return [116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)]


@pytest.mark.parametrize(("rgb", "lab"), KNOWN)
def test_known_colours_both_ways(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    assert rgb_to_lab(colour(rgb)).flatten().tolist() == pytest.approx(lab, abs=0.006)
    assert lab_to_rgb(colour(lab)).flatten().tolist() == pytest.approx(rgb, abs=2e-3)


def test_as_the_definitions_say_for_dark_and_light_colours() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((1, 3, 8, 8), generator=generator) ** 3  # many below both knees
    lab = rgb_to_lab(pixels)
    assert bool((pixels < 0.04045).any())
    assert float(lab[:, 0].min()) < 8  # the straight part of L*
    for row in range(8):
        for column in range(8):
            expected = by_definition(*pixels[0, :, row, column].tolist())
            assert lab[0, :, row, column].tolist() == pytest.approx(expected, abs=2e-3)


def test_there_and_back() -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand((2, 3, 16, 16), generator=generator)
    pixels[0, :, 0, :3] = torch.tensor([0.0, 0.02, 1.0])
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(pixels)), pixels, atol=2e-5, rtol=0)


def test_colours_that_srgb_lacks_are_not_clamped() -> None:
    rgb = lab_to_rgb(colour((50.0, 100.0, 100.0)))
    assert float(rgb.max()) > 1
    assert float(rgb.min()) < 0
    assert bool(rgb.isfinite().all())


def test_gradients_are_finite_at_black_and_agree_with_differences() -> None:
    for function in (rgb_to_lab, lab_to_rgb):
        black = torch.zeros((1, 3, 1, 1), requires_grad=True)
        (gradient,) = torch.autograd.grad(function(black).sum(), black)
        assert bool(gradient.isfinite().all())
    pixels = torch.tensor([0.02, 0.3, 0.9], dtype=torch.float64).view(1, 3, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, (pixels,))
    lab = torch.tensor([40.0, 20.0, -30.0], dtype=torch.float64).view(1, 3, 1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lab_to_rgb, (lab,))
