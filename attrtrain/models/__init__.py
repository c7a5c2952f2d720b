"""Backbones and heads: a crop goes in, one logit an attribute comes out."""
