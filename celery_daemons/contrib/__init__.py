"""Integrations with other projects. Nothing else in the package imports them."""
