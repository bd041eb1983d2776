"""The commands that work with a running installation, or on its database: one module each."""
