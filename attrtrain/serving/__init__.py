"""A trained model behind HTTP: a page, and an API that programs call."""
