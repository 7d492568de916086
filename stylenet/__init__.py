"""stylenet: arbitrary style transfer with adaptive instance normalisation (Huang & Belongie 2017)."""

__version__ = "0.1.0"
