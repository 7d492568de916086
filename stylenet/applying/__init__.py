"""Applying trained networks: pictures, data sets, clips and optimised pixels."""
