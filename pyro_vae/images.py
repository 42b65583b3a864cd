"""Which axis of an image holds its channels: the first of a row, as convolutions need it."""

from collections.abc import Sequence

from torch import Tensor

# Grey, colour, and colour with transparency: an axis of another size holds no colours.
_NUM_CHANNELS = (1, 3, 4)


def check_channels_first(shape: Sequence[int], name: str, way_out: str) -> None:
    """Refuse an image's shape whose last axis looks like its channels, such as (32, 32, 3).

    The last size is 1, 3 or 4 and the first is larger. A square of two equal sizes in the last
    place is an image of many channels, and passes.

    Arguments:
        shape: of one row; a row of one, two or more than three axes passes.
        name: the argument that an error speaks of.
        way_out: what the error tells to do.

    Raises:
        ValueError: if it does.
    """
    if len(shape) != 3:
        return
    first, second, last = shape
    if last in _NUM_CHANNELS and first > last and second != last:
        raise ValueError(
            f"'{name}' must have images of the shape (C, H, W), got {tuple(shape)}, whose last axis "
            f"looks like the channels: {way_out}"
        )


def channels_first(images: Tensor) -> Tensor:
    """Images `(N, H, W, C)` as `(N, C, H, W)`.

    Raises:
        ValueError: if the images have another number of axes.
    """
    if images.dim() != 4:
        raise ValueError(
            "'channels_last' must be left out except for images of the shape (rows, H, W, C), got "
            f"{tuple(images.shape)}."
        )
    return images.movedim(-1, 1).contiguous()
