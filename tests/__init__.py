"""The tests: unit, store, integration, fault, typing, benchmarks, and the support they stand on."""
