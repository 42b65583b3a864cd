"""Chunks: a large number of draws or rows in parts, to bound the memory."""


def chunk_size(most: int, each: int) -> int:
    """Return how many items of a size are at most this many numbers together, at least one."""
    return max(1, most // each)


def chunks(total: int, size: int) -> list[int]:
    """Return the sizes of the parts of a total, each of at most `size`."""
    return [min(size, total - start) for start in range(0, total, size)]
