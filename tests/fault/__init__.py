"""Tests that attack the invariants: each causes the faults that the documentation claims to survive."""
