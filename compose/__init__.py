"""For maintainers: writes the model families in `cfg/` as Darknet cfg text from backbones and heads.

Users read and edit the cfg files themselves; nothing that runs or trains a model imports this package.
"""
