"""The package beside what people would use in its place, in one run; an environment of its own, no part of CI."""
