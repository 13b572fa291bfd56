"""Measurements, beside bare operations of the same run; printed as a table, never asserted."""
