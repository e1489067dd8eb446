"""An autoencoder in pieces that each run over tiles of the image, with the same result as the whole."""
