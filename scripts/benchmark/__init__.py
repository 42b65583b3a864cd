"""The speed benchmark: contestants in processes of their own, interleaved on one machine in one run."""
