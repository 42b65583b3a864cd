"""The speed benchmark: contestants in processes of their own, which take turns on one machine."""
