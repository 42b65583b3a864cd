"""Comparisons of parts: the same data and schedule, one part changed."""
