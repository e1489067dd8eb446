"""What can be wrong with an access token as it was copied, before anybody is asked about it.

Standard library only: the doctor runs on a bare Python.
"""

from __future__ import annotations


def find_fault(value: str) -> str:
    """Say what keeps ``value`` from being a token, as the end of a sentence that begins with "it".

    Args:
        value: As it stands in a variable or a file; space around it does no harm.

    Returns:
        For example ``"has two lines"``; empty when nothing is wrong.
    """
    token = value.strip()
    if not token:
        return "is empty"
    lines = len(token.splitlines())
    if lines > 1:
        return f"has {'two' if lines == 2 else lines} lines"
    if token[0] in "'\"`" or token[-1] in "'\"`":
        return "has quotes around it"
    if token.lower().startswith(("bearer ", "hf_token=", "token=", "export ")):
        return "has words before it"
    if any(letter.isspace() for letter in token):
        return "has spaces in it"
    if not token.isascii() or not token.isprintable():
        return "has letters that no token has"
    return ""
