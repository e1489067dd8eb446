"""From a bare Python to a complete environment; standard library only."""
