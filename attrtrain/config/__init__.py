"""Every knob of a training run, typed, and how YAML and flags become one. Imports no torch."""
