"""Tests of the public types, as a user's type checker sees them."""
