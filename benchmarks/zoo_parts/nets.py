"""The zoo's networks: body, width of its features and decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Parts = tuple[nn.Module, int, nn.Module]


def _mlp(side: int, latent: int) -> Parts:
    pixels = side * side
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 64),
        nn.ReLU(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, pixels),
        nn.Unflatten(1, (1, side, side)),
    )
    return body, 64, decoder


def _conv(side: int, latent: int) -> Parts:
    half, quarter = side // 2, -(-side // 4)
    body = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * quarter**2, 64),
        nn.ReLU(),
    )
    even = half % 2 == 0
    decoder = nn.Sequential(
        nn.Linear(latent, 64),
        nn.ReLU(),
        nn.Linear(64, 24 * quarter**2),
        nn.ReLU(),
        nn.Unflatten(1, (24, quarter, quarter)),
        nn.ConvTranspose2d(24, 12, 3, stride=2, padding=1, output_padding=int(even)),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 1, 3, stride=2, padding=1, output_padding=1),
    )
    return body, 64, decoder


def _deep(side: int, latent: int) -> Parts:
    """Three hidden layers a side, SiLU."""
    pixels, widths = side * side, (160, 96, 48)
    body: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((pixels, *widths[:-1]), widths, strict=True):
        body += [nn.Linear(before, after), nn.SiLU()]
    decoder: list[nn.Module] = []
    for before, after in zip((latent, *widths[:0:-1]), widths[::-1], strict=True):
        decoder += [nn.Linear(before, after), nn.SiLU()]
    decoder += [nn.Linear(widths[0], pixels), nn.Unflatten(1, (1, side, side))]
    return nn.Sequential(*body), widths[-1], nn.Sequential(*decoder)


def _upsampling(side: int, latent: int) -> Parts:
    """Convolutions with group norm and average pooling; the decoder resizes, GELU."""
    half = side // 2
    body = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16 * half**2, 96),
        nn.GELU(),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 96),
        nn.GELU(),
        nn.Linear(96, 8 * half**2),
        nn.GELU(),
        nn.Unflatten(1, (8, half, half)),
        nn.Upsample(size=(side, side), mode="nearest"),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    return body, 96, decoder


class _Block(nn.Module):
    """x + W2 ELU(W1 ELU(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        elu = nn.functional.elu
        moved: Tensor = x + self.second(elu(self.first(elu(x))))
        return moved


def _residual(side: int, latent: int) -> Parts:
    """Two residual blocks a side, ELU, layer norm before the heads."""
    pixels, width = side * side, 96
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, width), _Block(width), _Block(width), nn.LayerNorm(width)
    )
    decoder = nn.Sequential(
        nn.Linear(latent, width),
        _Block(width),
        _Block(width),
        nn.ELU(),
        nn.Linear(width, pixels),
        nn.Unflatten(1, (1, side, side)),
    )
    return body, width, decoder


def _strided(side: int, latent: int) -> Parts:
    """Strided convolutions and transposes, batch norm, leaky ReLU."""
    half, quarter = -(-side // 2), -(-side // 4)
    body = nn.Sequential(
        nn.Conv2d(1, 10, 4, stride=2, padding=1),
        nn.BatchNorm2d(10),
        nn.LeakyReLU(0.2),
        nn.Conv2d(10, 20, 3, stride=2, padding=1),
        nn.BatchNorm2d(20),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(20 * quarter**2, 80),
        nn.LeakyReLU(0.2),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 20 * quarter**2),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (20, quarter, quarter)),
        nn.ConvTranspose2d(20, 12, 3, stride=2, padding=1, output_padding=int(half % 2 == 0)),
        nn.BatchNorm2d(12),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(12, 1, 4, stride=2, padding=1),
    )
    return body, 80, decoder


def _tanh(side: int, latent: int) -> Parts:
    """One wide hidden layer a side, tanh."""
    pixels, width = side * side, 200
    body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Tanh())
    decoder = nn.Sequential(
        nn.Linear(latent, width),
        nn.Tanh(),
        nn.Linear(width, pixels),
        nn.Unflatten(1, (1, side, side)),
    )
    return body, width, decoder


class _Heard(nn.Module):
    """A decoder of two hidden layers, SELU, each of which hears the code again."""

    def __init__(self, side: int, latent: int) -> None:
        super().__init__()
        self.side = side
        self.first, self.second = nn.Linear(latent, 72), nn.Linear(72 + latent, 112)
        self.last = nn.Linear(112 + latent, side * side)

    def forward(self, z: Tensor) -> Tensor:
        selu = nn.functional.selu
        hidden = selu(self.first(z))
        hidden = selu(self.second(torch.cat([hidden, z], dim=1)))
        x_hat: Tensor = self.last(torch.cat([hidden, z], dim=1))
        return x_hat.view(-1, 1, self.side, self.side)


def _skipping(side: int, latent: int) -> Parts:
    """Two hidden layers a side, SELU; the code is handed to every layer of the decoder."""
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(side * side, 112), nn.SELU(), nn.Linear(112, 72), nn.SELU()
    )
    return body, 72, _Heard(side, latent)


def _patches(side: int, latent: int) -> Parts:
    """Patches of 2 x 2 pixels as channels, Mish; the decoder shuffles channels into pixels."""
    half = side // 2
    body = nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(4, 10, 1),
        nn.Mish(),
        nn.Conv2d(10, 10, 3, padding=1),
        nn.Mish(),
        nn.Flatten(),
        nn.Linear(10 * half**2, 64),
        nn.Mish(),
    )
    decoder = nn.Sequential(
        nn.Linear(latent, 64),
        nn.Mish(),
        nn.Linear(64, 10 * half**2),
        nn.Mish(),
        nn.Unflatten(1, (10, half, half)),
        nn.Conv2d(10, 4, 3, padding=1),
        nn.PixelShuffle(2),
    )
    return body, 64, decoder


def _shallow(side: int, latent: int) -> Parts:
    """One hidden layer before the code, two behind it, softplus."""
    pixels, width = side * side, 96
    body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Softplus())
    decoder = nn.Sequential(
        nn.Linear(latent, width),
        nn.Softplus(),
        nn.Linear(width, width),
        nn.Softplus(),
        nn.Linear(width, pixels),
        nn.Unflatten(1, (1, side, side)),
    )
    return body, width, decoder


#: Two each of the tuning set and the fresh one, three each of the held one and the blind one.
NETS = {
    "mlp": _mlp,
    "conv": _conv,
    "deep": _deep,
    "upsampling": _upsampling,
    "residual": _residual,
    "strided": _strided,
    "tanh": _tanh,
    "skipping": _skipping,
    "patches": _patches,
    "shallow": _shallow,
}
