"""Families: a file each, found by its file name; ``shared`` holds what several of them have in common."""
