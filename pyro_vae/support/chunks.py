"""Chunks of a large number of draws or rows, to bound the memory."""


def chunk_size(most: int, each: int) -> int:
    """Return the number of items of size `each` that make up at most `most`, and at least 1."""
    return max(1, most // each)


def chunks(total: int, size: int) -> list[int]:
    """Return the sizes of the chunks of a total, each at most `size`."""
    return [min(size, total - start) for start in range(0, total, size)]
