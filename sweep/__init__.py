"""Find the defense, and the hyperparameters, that make an image classifier robust to adversarial attack."""

__version__ = "0.1.0"
