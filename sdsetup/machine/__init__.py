"""Facts about this machine, and the readers that collect them."""
