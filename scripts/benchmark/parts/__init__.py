"""The parts of the benchmark: each measures its contestants, and adds its results to the page."""
