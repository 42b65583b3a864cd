"""Parts compared: the same data and schedule, one part changed."""
