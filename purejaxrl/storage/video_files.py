"""Pictures in a row as a GIF, by Pillow, or as an MP4, by ffmpeg where that is installed."""

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
# Colours of a GIF, and of how many pictures they are chosen.
COLORS, SAMPLES = 64, 16
# How long a GIF rests on its last picture before it begins again.
REST_MILLISECONDS = 1000


class Cut(NamedTuple):
    """How a film is cut: one step of so many is shown, and pixels each way become one."""

    every: int
    shrink: int


# A GIF's clock counts hundredths of a second, and viewers slow down what is faster than 0.02.
GIF, MP4 = Cut(2, 2), Cut(1, 1)


def check_target(name: str, path: Path) -> None:
    """Raise InputError, which begins with the name of the flag or argument, where no film can be written there."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{name}: {path} is not allowed; a film's name ends in {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError(f"{name}: {path} needs ffmpeg, which is not on the PATH; a name that ends in .gif does not")
    if path.is_dir():
        raise InputError(f"{name}: {path} is a folder; give a file")


def write(path: Path, pictures: Sequence[np.ndarray], seconds: float) -> None:
    """Write RGB pictures [height, width, 3], each shown for so many seconds, to path: whole or not at all.

    Raises InputError where ffmpeg fails, and ResourceError where the disk is full.
    """
    with replacing(path) as partial:
        if path.suffix.lower() == ".gif":
            partial.write_bytes(gif(pictures, seconds))
        else:
            write_mp4(partial, pictures, seconds)


def gif(pictures: Sequence[np.ndarray], seconds: float) -> bytes:
    """A GIF that repeats. Its clock counts hundredths of a second; viewers slow down what is faster than 0.02."""
    from PIL import Image

    codes = [code_of(picture) for picture in pictures]
    palette = palette_of(codes)
    images = [Image.fromarray(indices_of(code, palette)) for code in codes]
    channels = np.stack([palette >> 16, palette >> 8 & 255, palette & 255], axis=1)
    for image in images:
        image.putpalette(channels.astype(np.uint8).tobytes())
    durations = [round(1000 * seconds)] * (len(images) - 1) + [REST_MILLISECONDS]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()


def code_of(picture: np.ndarray) -> np.ndarray:
    """Every colour as one number: [height, width, 3] -> [height, width]."""
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def palette_of(codes: Sequence[np.ndarray]) -> np.ndarray:
    """The colours that are most frequent, one palette for all pictures: what does not move does not flicker.

    Exact colours, not averages as Pillow's palettes are: white stays white.
    """
    colors, counts = np.unique(np.stack(codes[:: -(-len(codes) // SAMPLES)]), return_counts=True)
    return colors[np.argsort(-counts, kind="stable")[:COLORS]]


def indices_of(code: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The place in the palette of the colour that is nearest to each pixel's."""
    colors, inverse = np.unique(code, return_inverse=True)
    distance = sum(np.square((colors[:, None] >> shift & 255) - (palette >> shift & 255)) for shift in (0, 8, 16))
    return np.argmin(distance, axis=1).astype(np.uint8)[inverse.reshape(code.shape)]


def write_mp4(path: Path, pictures: Sequence[np.ndarray], seconds: float) -> None:
    """An MP4 as every player takes it. Raises InputError where ffmpeg fails, OSError where the disk is full."""
    height, width, _ = pictures[0].shape
    command = [
        "ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", f"{1 / seconds:g}", "-i", "-", "-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4",
        str(path.absolute()),
    ]  # fmt: skip
    content = b"".join(np.ascontiguousarray(picture).tobytes() for picture in pictures)
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode == -signal.SIGXFSZ:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())
        for number in DISK_FULL:
            # ffmpeg's exit code does not tell, but it says what the system has said.
            if os.strerror(number) in said:
                raise OSError(number, os.strerror(number))
        raise InputError(f"ffmpeg cannot write {path.stem}: {said[-200:]}")
