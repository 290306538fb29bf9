"""For maintainers: composes the model families in `cfg/`, as Darknet cfg text, from backbones and heads.

Users read and edit the cfg files themselves; no code that runs or trains a model imports this package.
"""
