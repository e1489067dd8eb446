"""One file for each kind of submodel: its inputs, outputs and how to build it from a component's config."""
