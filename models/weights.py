"""The .weights file: a header, then every stored tensor as float32 in layer order (parser.c load_weights_upto).

The byte account is settled before the first value is copied.
"""
