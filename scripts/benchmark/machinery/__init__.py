"""The machinery: processes that take turns, their setting, and summaries of their seconds."""
