"""Miniature data sets: rendered scenes in the exact on-disk formats of the real ones.

The real archives need an account or are large; loaders, evaluators and submission writers are tested on these. Users
write them by tools/make_miniature.py.
"""
