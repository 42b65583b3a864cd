"""Pictures that `sample.py` draws of a run."""
