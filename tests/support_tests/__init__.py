"""Tests of the tests' own tools: a fault test proves nothing if its fault does not happen."""
