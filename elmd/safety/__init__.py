"""Safety: the crisis gate, which reads every turn before anything else does."""
