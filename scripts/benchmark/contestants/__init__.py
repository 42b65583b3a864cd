"""The contestants: ways to do the same work, and the data and networks that several share."""
