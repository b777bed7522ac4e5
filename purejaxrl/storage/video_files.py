"""Videos as files: GIF by Pillow, MP4 by ffmpeg, which must be installed for that."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purejaxrl.errors import InputError
from purejaxrl.storage.files import DISK_FULL, replacing

SUFFIXES = (".gif", ".mp4")
# Colours of a GIF, and from how many of its frames they are chosen.
COLORS, SAMPLES = 64, 16
# How long a GIF shows its last frame before it begins again.
REST_MILLISECONDS = 1000


class Sampling(NamedTuple):
    """Which part of an episode a video shows.

    Attributes:
        every: One step of so many is shown.
        shrink: Blocks of so many by so many pixels become one.
    """

    every: int
    shrink: int


# A GIF's clock counts hundredths of a second, and viewers slow down what is faster than 0.02.
GIF, MP4 = Sampling(2, 2), Sampling(1, 1)


def check_target(name: str, path: Path) -> None:
    """Check that a video can be written to a path.

    Args:
        name: The flag that gave the path, for error messages.
        path: The file.

    Raises:
        InputError: If the suffix is neither .gif nor .mp4, the path is a folder, or ffmpeg is needed and missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{name}: {path} is not allowed; a video's name ends in {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError(f"{name}: {path} needs ffmpeg, which is not on the PATH; a name that ends in .gif does not")
    if path.is_dir():
        raise InputError(f"{name}: {path} is a folder; give a file")


def write(path: Path, frames: Sequence[np.ndarray], seconds: float) -> None:
    """Write a video whole or not at all.

    Args:
        path: The file, whose suffix decides the format.
        frames: RGB images [height, width, 3], uint8.
        seconds: How long each is shown.

    Raises:
        InputError: If ffmpeg fails.
        ResourceError: If the disk is full.
    """
    with replacing(path) as partial:
        if path.suffix.lower() == ".gif":
            partial.write_bytes(gif(frames, seconds))
        else:
            _write_mp4(partial, frames, seconds)


def gif(frames: Sequence[np.ndarray], seconds: float) -> bytes:
    """Encode a GIF that repeats.

    Args:
        frames: RGB images [height, width, 3], uint8.
        seconds: How long each is shown, rounded to hundredths; viewers slow down what is faster than 0.02.

    Returns:
        The content of the file.
    """
    from PIL import Image

    codes = [_color_codes(frame) for frame in frames]
    palette = _palette(codes)
    images = [Image.fromarray(_palette_indices(code, palette)) for code in codes]
    channels = np.stack([palette >> 16, palette >> 8 & 255, palette & 255], axis=1)
    for image in images:
        image.putpalette(channels.astype(np.uint8).tobytes())
    durations = [round(1000 * seconds)] * (len(images) - 1) + [REST_MILLISECONDS]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()


def _color_codes(frame: np.ndarray) -> np.ndarray:
    """Encode every colour as one number: [height, width, 3] -> [height, width]."""
    red, green, blue = np.moveaxis(frame.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def _palette(codes: Sequence[np.ndarray]) -> np.ndarray:
    """Choose the most frequent colours, the same for all frames, so that what does not move does not flicker.

    They are exact, where Pillow's palettes are averages: white stays white.
    """
    colors, counts = np.unique(np.stack(codes[:: -(-len(codes) // SAMPLES)]), return_counts=True)
    return colors[np.argsort(-counts, kind="stable")[:COLORS]]


def _palette_indices(code: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Find the colour in the palette that is nearest to each pixel's, by its index."""
    colors, inverse = np.unique(code, return_inverse=True)
    distance = sum(np.square((colors[:, None] >> shift & 255) - (palette >> shift & 255)) for shift in (0, 8, 16))
    return np.argmin(distance, axis=1).astype(np.uint8)[inverse.reshape(code.shape)]


def _write_mp4(path: Path, frames: Sequence[np.ndarray], seconds: float) -> None:
    """Write an MP4 that every player can show. Raises InputError if ffmpeg fails, OSError if the disk is full."""
    height, width, _ = frames[0].shape
    command = [
        "ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", f"{1 / seconds:g}", "-i", "-", "-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4",
        str(path.absolute()),
    ]  # fmt: skip
    content = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode == -signal.SIGXFSZ:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())
        for number in DISK_FULL:
            # ffmpeg's exit code does not say why it failed, but its message does.
            if os.strerror(number) in said:
                raise OSError(number, os.strerror(number))
        raise InputError(f"ffmpeg cannot write {path.stem}: {said[-200:]}")
