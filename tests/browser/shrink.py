"""Makes PNG files small, and a moving picture of those that are frames of one.

256 colours are enough for pages, and take a third of the bytes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image

COLOURS = 256
FRAME_MS = 250


def shrink(path: Path) -> None:
    """Write a picture anew with as few bytes as it takes."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def move(folder: Path, path: Path) -> None:
    """Make a GIF of the frames in a folder, which is then removed."""
    frames = []
    for file in sorted(folder.glob("*.png")):
        with Image.open(file) as frame:
            frames.append(frame.convert("RGB"))
    # One palette for all, so that what stays the same stays the same.
    palette = frames[len(frames) // 2].quantize(COLOURS, dither=Image.Dither.NONE)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=FRAME_MS, loop=0, optimize=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    images = Path(sys.argv[1])
    for picture in sorted(images.glob("*.png")):
        shrink(picture)
    move(images / "frames", images / "live.gif")
