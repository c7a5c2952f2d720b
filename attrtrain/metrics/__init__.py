"""How good predictions are, beside how good guessing would be."""
