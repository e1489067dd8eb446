"""Mutation testing: change a module a little, and look whether the tests that belong to it notice."""
