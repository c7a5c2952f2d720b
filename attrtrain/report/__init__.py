"""What a model learnt, for people."""
