"""Text to image: prompts, tokenizers, schedulers, the generation loop and image files."""
