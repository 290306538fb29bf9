"""Drawn scenes of machine parts: ten classes to experiment and test with before you have your own data.

    make_scenes("scenes", count=500)   ->   scenes/scenes.data, for anything that takes a data set

Parts of several materials lie at any angle on a conveyor belt, steel, wood or a mat. They do not cover each other; up to
40 % of a part may be outside the image. All parts of a scene are lit by one lamp and cast soft shadows.
"""

from data.scenes.folder import make_scenes
from data.scenes.painting import Scene, paint_scene
from data.scenes.parts import NAMES

__all__ = ["NAMES", "Scene", "make_scenes", "paint_scene"]
