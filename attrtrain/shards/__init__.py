"""`ObjectTable` → WebDataset shards with a manifest. Imports no torch."""
