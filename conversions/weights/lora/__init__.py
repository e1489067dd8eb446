"""Adapters that change a model's weights a little: LoRA, LoCon, LoHa, LoKr, DoRA and full differences.

An adapter file is read (``adapter_file``), its keys are understood (``adapter_keys``) and matched with the
real names of a component's weights (``module_names``, ``match``); each layer becomes an expression
(``delta``, ``layer``) that is added to a weight (``merge``) by a transform of the component (``transform``).
"""
