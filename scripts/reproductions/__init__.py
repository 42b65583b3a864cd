"""The five reference systems: each module trains one, and adds its results to a page."""
