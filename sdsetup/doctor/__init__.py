"""``sdsetup doctor``: a verdict for a purpose, from facts that were read. Standard library only."""
