"""Every option once, declared by section, with its default and its meaning."""
