"""The command line: one file a verb, one place for errors, one place for output."""
