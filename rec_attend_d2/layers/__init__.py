"""Layers that know nothing of data sets, configs or detection; the parts of the model are made of them."""
