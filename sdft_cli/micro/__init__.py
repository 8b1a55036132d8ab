"""The micro world: a made-up language, its base skills, and hidden rules to be learned.

Everything here is plain Python and deterministic in its seeds; nothing loads a model.
The shipped base checkpoint lies beside these files in ``model/`` and is reproduced by
``recipes/micro-base/pretrain.py``. It is a synthetic world: evidence about the code and the
mechanics of a method, never about a 7B model.
"""
