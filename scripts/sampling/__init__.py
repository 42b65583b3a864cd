"""What `sample.py` shows of a run."""
