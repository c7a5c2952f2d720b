"""Shards → batches on a device."""
