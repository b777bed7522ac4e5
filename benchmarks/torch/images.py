"""gymnasium's frame of CartPole made small: rows 160 to 319, full width, area-averaged to 40 x 90 RGB."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

HEIGHT, WIDTH, CHANNELS = 40, 90, 3
TOP, BOTTOM = 160, 320
ROWS = 4  # of the frame to one of the small image
COLUMNS = 600


def column_weights() -> Tensor:
    """[60, 9]: 20 columns of the frame, RGB, become 3; the third of a column counts on either side of a border.

    F.interpolate(mode="area") counts such a column in full on both sides, which is off by up to 19 of 255.
    """
    width = COLUMNS / WIDTH
    columns, period = 3, 20
    left, right = torch.arange(columns) * width, (1 + torch.arange(columns)) * width
    pixel = torch.arange(period)[:, None]
    overlap = (torch.minimum(pixel + 1, right) - torch.maximum(pixel, left)).clamp(min=0)
    return torch.kron(overlap / width / ROWS, torch.eye(CHANNELS))


WEIGHTS = column_weights()


def shrink(frame: np.ndarray) -> Tensor:
    """[400, 600, 3] -> [40 * 90 * 3], uint8. NumPy sums rows in 16 bits, several times faster than floats are made."""
    rows = frame[TOP:BOTTOM].reshape(HEIGHT, ROWS, COLUMNS * CHANNELS)
    total = np.add(rows[:, 0], rows[:, 1], dtype=np.uint16)
    total += rows[:, 2]
    total += rows[:, 3]
    return (torch.from_numpy(total).float().view(-1, len(WEIGHTS)) @ WEIGHTS).add_(0.5).to(torch.uint8).view(-1)
