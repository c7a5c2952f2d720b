"""What others are told of a model, and the folder in which they get it."""
