"""Captions by seeds, made with ``sdsetup generate``.

Run as ``python -m tests.demo_training.contact_sheet PACKAGE SHEET.png``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

CAPTIONS = (
    "a red circle on a blue background",
    "two green triangles on a white background",
    "three pink rings on gray",
    "a large yellow star on a purple background",
    "a small black square left of a large orange circle on white",
    "a blue cross right of a red triangle on yellow",
)
SEEDS = 5
_SIDE, _LINE = 128, 18


def main(package: Path, sheet: Path) -> None:
    canvas = Image.new("RGB", (SEEDS * _SIDE, len(CAPTIONS) * (_SIDE + _LINE)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, caption in enumerate(CAPTIONS):
        top = row * (_SIDE + _LINE)
        pen.text((4, top + 3), f"{caption}, seeds 1 to {SEEDS}", fill="black")
        for column, image in enumerate(_generate(package, caption)):
            canvas.paste(image, (column * _SIDE, top + _LINE))
    canvas.save(sheet, optimize=True)


def _generate(package: Path, caption: str) -> list[Image.Image]:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(package), caption, "--seed", "1", "--images", str(SEEDS), "--steps", "20"]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "sdsetup",
                "generate",
                *arguments,
                "--output",
                f"{folder}/shown.png",
            ],
            check=True,
        )
        names = [Path(folder) / f"shown-{place + 1}.png" for place in range(SEEDS)]
        return [Image.open(name).convert("RGB") for name in names]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
