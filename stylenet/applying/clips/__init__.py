"""Clips: reading and writing them, with their sound and their frame times."""
