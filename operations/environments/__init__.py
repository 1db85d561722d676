"""Environments of pull requests: each a stack of its own, made from a template, removed with all it had."""
