"""The micro world: a made-up language, its base skills, and hidden rules to learn.

Everything here is plain Python, deterministic given its seeds, and loads no model. The embedded base model is in
``model/``; ``recipes/micro-base/pretrain.py`` makes it again. The world is synthetic: it is evidence about the code and
the mechanics of a method, never about a 7B model.
"""
