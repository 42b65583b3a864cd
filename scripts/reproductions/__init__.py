"""The five reference systems: each module trains one, and lays its figures and numbers on a page."""
