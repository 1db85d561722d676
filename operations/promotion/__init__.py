"""Promotion: the images that run healthily in one stack, by their digests, are deployed to another."""
