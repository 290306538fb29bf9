"""Drawn scenes: 32 classes, eight shapes in four textures, for trying and testing without data of one's own.

    make_scenes("scenes", count=500)   ->   scenes/scenes.data, to be given to anything that takes a data set

Texture and shape are chosen independently of colour, size, pose and background, and backgrounds and clutter carry
textures and colours too: a network has to look at the outline and at what is inside it. Objects cover each other
(40 % of each stays visible), reach over the border, throw shadows; the images have uneven light, blur and noise.
"""

from data.scenes.folder import make_scenes
from data.scenes.painter import Scene, paint_scene
from data.scenes.shapes import NAMES

__all__ = ["NAMES", "Scene", "make_scenes", "paint_scene"]
