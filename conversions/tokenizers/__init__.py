"""Tokenizers from a checkpoint's or a package's own files, without transformers in the process.

``open_tokenizer`` opens one by the class that its files name; a new class is one file here and one line in
``registry.py``. ``compare.py`` proves that the tokens are transformers'.
"""

from conversions.tokenizers.registry import open_tokenizer, open_tokenizer_of, tokens_without_embedding
from conversions.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer", "open_tokenizer", "open_tokenizer_of", "tokens_without_embedding"]
