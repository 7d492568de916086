"""Training runs: objects, bookkeeping, validation."""
