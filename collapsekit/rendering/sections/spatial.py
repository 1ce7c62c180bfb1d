"""Latents that are images: KL by position and by channel. Part of the section on dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collapsekit.rendering import wording
from collapsekit.rendering.blocks import Block, Column, Drawing, Figure, Fold, Table
from collapsekit.rendering.facts import Facts, Floats
from collapsekit.rendering.rasters import alpha_layer
from collapsekit.rendering.wording import figure, percent

if TYPE_CHECKING:
    from collapsekit.rendering.canvas import Canvas

BLUE = (0, 114, 178)


def shape_of(facts: Facts) -> tuple[int, int, int] | None:
    """(channels, height, width) of a latent that is an image; None for vectors."""
    shape = facts.audit.provenance.get("latent_shape")
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        return None
    try:
        channels, height, width = (int(side) for side in shape)
    except (TypeError, ValueError):
        return None
    if channels * height * width != len(facts.audit.dimensions) or min(height, width) < 2:
        return None
    return channels, height, width


def blocks(facts: Facts, kl: Floats, shape: tuple[int, int, int]) -> list[Block]:
    """A map for each channel, and a table of the channels."""
    channels, height, width = shape
    if not np.array_equal(facts.index, np.arange(len(facts.index))):
        return []
    maps = np.nan_to_num(kl).reshape(shape)
    shown = min(channels, 16)
    top = float(maps.max())
    columns = min(shown, 8)
    rows = -(-shown // columns)
    gap = max(1, width // 16)
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap))
    for channel in range(shown):
        row, column = divmod(channel, columns)
        y, x = row * (height + gap), column * (width + gap)
        sheet[y : y + height, x : x + width] = (
            0.06 + 0.94 * maps[channel] / top if top > 0 else 0.06
        )
    pixels = alpha_layer(sheet, BLUE)
    ratio = sheet.shape[0] / sheet.shape[1]

    def size(canvas_width: int) -> tuple[float, float]:
        wide = min(canvas_width, columns * 168)
        return wide, wide * ratio

    def paint(canvas: Canvas) -> None:
        wide, high = size(canvas.width)
        canvas.heading("Mean KL by position, one map per channel", top=13)
        axes = canvas.axes(0, 26, canvas.width - wide, canvas.height - 26 - high, grid="none")
        axes.set_axis_off()
        canvas.raster(axes, pixels)

    by_channel = maps.reshape(channels, -1)
    strongest = int(by_channel.sum(1).argmax())
    result = (
        f"Channel {strongest} carries the most: {figure(float(by_channel[strongest].sum()))} of "
        f"{figure(float(maps.sum()))} nats."
    )
    caption = (
        f"Channels 0 to {shown - 1}, left to right and top to bottom; darkest is "
        f"{figure(top)} nats."
    )
    caption += f" {wording.showing(shown, channels, 'channel')}"
    picture = Figure(
        Drawing(
            "kl-map-of-positions",
            f"Mean KL by position of {shown} channels. {result}",
            paint,
            round(26 + size(800)[1]) + 2,
            round(26 + size(342)[1]) + 2,
        ),
        result=result,
        caption=caption.strip(),
    )
    return [
        picture,
        Fold("Data: by channel, with the scale of the codes", (_channel_table(facts, maps),)),
    ]


def _channel_table(facts: Facts, maps: Floats) -> Table:
    channels = len(maps)
    mean, variance = (facts.per_dimension(f"aggregate_{name}") for name in ("mean", "variance"))
    active = facts.per_dimension("active")
    rows = []
    for channel in range(min(channels, 64)):
        row = [
            str(channel),
            figure(float(maps[channel].sum())),
            figure(float(maps[channel].mean())),
        ]
        if active is not None:
            row.append(percent(float(np.nanmean(active.reshape(channels, -1)[channel]))))
        if mean is not None and variance is not None:
            centre = mean.reshape(channels, -1)[channel]
            spread = variance.reshape(channels, -1)[channel]
            row.append(figure(float(np.nanmean(centre))))
            row.append(figure(float(np.sqrt(np.nanmean(spread) + np.nanvar(centre)))))
        rows.append(row)
    return Table(
        "Channels of the latent",
        (
            Column("Channel", numeric=False),
            Column("KL, nats"),
            Column("per position"),
            *([Column("Active")] if active is not None else []),
            *(
                [Column("Mean of codes"), Column("Std. dev.")]
                if mean is not None and variance is not None
                else []
            ),
        ),
        rows,
        note=wording.showing(len(rows), channels, "channel"),
        tight=True,
    )
