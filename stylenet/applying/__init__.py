"""Applying trained networks: pictures, data sets, clips, and pixels that are optimised."""
