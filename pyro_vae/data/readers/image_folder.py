"""Images in a folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.names import Names
from pyro_vae.data.readers.files import FileSource, reason
from pyro_vae.data.rows import Rows
from pyro_vae.data.storage import Levels, ReadOneByOne, fits_in_memory
from pyro_vae.data.transforms import Identity
from pyro_vae.support.checks import Shape, as_shape, flag

# Endings of files that are images.
IMAGE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
# Pillow's modes of grey images.
_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}
# The step between two 8-bit levels in 16 bits.
_STEP_OF_16_BITS = 257


class ImageFolder(FileSource):
    """Folder of images, with or without a folder for each class.

    The images lie in the folder itself, or in folders of it at any depth: the first folder then is
    the class. Levels are kept as they are, 0 … 255; those of 16 bits are rounded to 8.

    Arguments:
        path: the folder.
        size: the height and width of all images, one number for both; each image is scaled to fill
            it, and its edges are cut off. When omitted, all images must have one size.
        grey: true for grey images, false for RGB; those of the first image when omitted.
        in_memory: true to hold all images in memory, false to read those of each batch; when
            omitted they are held if they fit.
        test_fraction: the share of rows for the test.
        seed: names the random stream that chooses these rows.

    Raises:
        ValueError: if a setting has another type, or `size` is no size.
    """

    kind = "a folder of images"

    def __init__(
        self,
        path: str,
        size: int | Sequence[int] | None = None,
        grey: bool | None = None,
        in_memory: bool | None = None,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(path, test_fraction, seed)
        self.size = size
        self._size = None if size is None else _height_and_width(size)
        self.grey = None if grey is None else flag(grey, "grey")
        self.in_memory = None if in_memory is None else flag(in_memory, "in_memory")

    def rows(self, known: Names | None = None) -> Rows:
        with self.reading():
            files, classes = found_images(Path(self.path))
        given = None if known is None else known.classes
        names = given or tuple(sorted(set(classes)))
        unknown = set(classes) - set(names)
        if unknown:
            raise self.refused(
                f"it has a class folder {min(unknown)}, and the run has {', '.join(names)}."
            )
        labels = torch.tensor([names.index(name) for name in classes]) if classes else None
        return Rows(
            self._levels(files), Identity(), labels=labels, class_names=names if names else None
        )

    def _levels(self, files: Sequence[Path]) -> Levels:
        """Return all images, `(N, C, H, W)`, or a storage that reads them batch by batch."""
        first = self._image(files[0], None)
        image_at = partial(self._image_at, files, first)
        is_held = self.in_memory
        if is_held is None:
            is_held = fits_in_memory(len(files) * first.nbytes)
        if not is_held:
            return ReadOneByOne(image_at, torch.arange(len(files)), first)
        levels = first.new_empty(len(files), *first.shape)
        for number in range(len(files)):
            levels[number] = image_at(number)
        return levels

    def _image_at(self, files: Sequence[Path], first: Tensor, number: int) -> Tensor:
        image = self._image(files[number], first)
        if image.shape != first.shape:
            sizes = [f"{height} × {width}" for _, height, width in (first.shape, image.shape)]
            raise self.refused(
                f"{files[0].name} has {sizes[0]} pixels and {files[number].name} {sizes[1]}: set "
                "'size'."
            )
        return image

    def _image(self, file: Path, first: Tensor | None) -> Tensor:
        """Return an image, `(C, H, W)`, with as many channels as the first one."""
        try:
            return self._read(file, first)
        except MemoryError:
            raise
        except Exception as error:
            name = file.relative_to(self.path)
            problem = one_reason(error, file)
            raise self.refused(f"{name} cannot be read: {problem}") from error

    def _read(self, file: Path, first: Tensor | None) -> Tensor:
        from PIL import Image, ImageOps

        with Image.open(file) as opened:
            is_grey = opened.mode in _GREY
            image = ImageOps.exif_transpose(_of_8_bits(opened))
        wants_grey = self.grey
        if wants_grey is None:
            wants_grey = is_grey if first is None else len(first) == 1
            if wants_grey and not is_grey:
                raise ValueError("it has colours, and the first image has none: set 'grey'")
        image = image.convert("L" if wants_grey else "RGB")
        if self._size is not None:
            height, width = self._size
            image = ImageOps.fit(image, (width, height), method=Image.Resampling.BICUBIC)
        return torch.from_numpy(np.atleast_3d(np.array(image)).transpose(2, 0, 1).copy())


def found_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images in a folder, in the order of their names, and their classes.

    Without class folders there are no classes.

    Raises:
        ValueError: if there is no folder or no image, or images lie beside class folders.
    """
    if not folder.exists():
        raise ValueError("there is no such folder.")
    if not folder.is_dir():
        raise ValueError("it is a file.")
    files = [file for file in sorted(folder.rglob("*")) if _is_image(file.relative_to(folder))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise ValueError("it holds no images.")
    classes = [file.relative_to(folder).parts[0] for file in files if file.parent != folder]
    if classes and len(classes) < len(files):
        beside = next(file for file in files if file.parent == folder)
        raise ValueError(
            f"{beside.name} lies beside the class folder {classes[0]}: put it into one, or all "
            "images into the folder itself."
        )
    return files, classes


def one_reason(error: Exception, file: Path) -> str:
    """Return in words why an image cannot be read, without its path."""
    if "cannot identify image file" in str(error):
        return "it is damaged, or no image."
    return reason(error).replace(str(file), file.name)


def _is_image(file: Path) -> bool:
    is_hidden = any(part.startswith((".", "__MACOSX")) for part in file.parts)
    return file.suffix.lower() in IMAGE_ENDINGS and not is_hidden


def _of_8_bits(image: Any) -> Any:
    """Return an image of Pillow whose levels are 0 … 255.

    Raises:
        ValueError: if its levels are real numbers, whose highest is unknown.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its levels are real numbers: write them by numpy.save")
    if not image.mode.startswith("I"):
        image.load()
        return image
    levels = np.asarray(image)
    if levels.max() > 255:
        levels = levels // _STEP_OF_16_BITS
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def _height_and_width(size: Shape) -> torch.Size:
    found = as_shape(size, "size")
    if len(found) not in (1, 2):
        raise ValueError(f"'size' must be one number or two, height and width, got {list(found)}.")
    return torch.Size((found[0], found[-1]))
