"""For torch.hub: torch.hub.load("path/of/this/clone", "stylizer", source="local")."""

from typing import Any

dependencies = ["torch", "numpy", "PIL", "safetensors", "tqdm", "filelock"]


def stylizer(path: str | None = None, **options: Any) -> Any:
    """A stylizer, of the included model or of another: as Stylizer.load."""
    from stylenet import Stylizer

    return Stylizer.load(path, **options) if path else Stylizer.load(**options)
