"""How a hospital becomes a site: its key, its request, the certificates that it gets."""
