"""One file for each family; its file is its registration."""
