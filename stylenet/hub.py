"""Models on the Hugging Face Hub, or on another server that HF_ENDPOINT names."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from stylenet.errors import WeightsError, one_line

HUB = "hf:"  # hf:owner/name
MODEL_FILE, CARD_FILE = "model.safetensors", "README.md"


def import_hub() -> ModuleType:
    """The package huggingface_hub. Raises WeightsError if it is missing."""
    try:
        import huggingface_hub
    except ImportError:
        raise WeightsError(
            "expected the package huggingface_hub for models named hf:owner/name, but it is "
            "missing; run: pip install huggingface_hub"
        ) from None
    return huggingface_hub


def fetch(name: str) -> Path:
    """The model file of hf:owner/name, downloaded once. Raises WeightsError."""
    hub = import_hub()
    try:
        return Path(hub.hf_hub_download(name.removeprefix(HUB), MODEL_FILE))
    except Exception as error:  # the hub's, its HTTP client's, or the system's
        raise WeightsError(
            f"expected {MODEL_FILE} on the hub as {name}, but it failed "
            f"({one_line(error)[:200]}); check the name, and HF_TOKEN for a private one"
        ) from None


def upload(file: Path, card: str, name: str) -> str:
    """Upload a model file and its card as one commit; returns its address.

    Raises WeightsError.
    """
    hub = import_hub()
    repository = name.removeprefix(HUB)
    try:
        api = hub.HfApi()
        api.create_repo(repository, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(MODEL_FILE, file),
            hub.CommitOperationAdd(CARD_FILE, card.encode()),
        ]
        return str(api.create_commit(repository, operations, commit_message="A stylenet model"))
    except Exception as error:  # the hub's, its HTTP client's, or the system's
        raise WeightsError(
            f"expected to upload to {HUB}{repository}, but it failed ({one_line(error)[:200]}); "
            "check the name and HF_TOKEN"
        ) from None
