"""The procedural head's sculpt: a lofted skull and neck, facial features as fields over it, and a mesh with loops around eyes and mouth.

Centimetres, y up, the face looks along +z; turned into metres when it is written.
"""
