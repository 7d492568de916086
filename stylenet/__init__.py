"""stylenet: arbitrary style transfer by adaptive instance normalisation (Huang & Belongie 2017)."""

from typing import Any

__version__ = "0.4.0"

LAZY = {
    "Gatys": "stylenet.applying.optimise",
    "StyleCard": "stylenet.looks",
    "Stylizer": "stylenet.applying.stylizer",
    "push": "stylenet.applying.export",
    "save_image": "stylenet.images",
}
__all__ = ["Gatys", "StyleCard", "Stylizer", "push", "save_image"]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'stylenet' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(LAZY[name]), name)
