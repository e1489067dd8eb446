"""Trains the demo checkpoint from nothing; see the README beside this file."""
