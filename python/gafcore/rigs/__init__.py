"""Head rigs: the data (`Rig`), how it moves (`skinning`), and the two that are built in (`procedural`, `ict`)."""

from gafcore.rigs.base import JOINT_NAMES, Rig
from gafcore.rigs.load import load_rig, read_spec, write_spec
from gafcore.rigs.regions import REGION_NAMES

__all__ = ["JOINT_NAMES", "REGION_NAMES", "Rig", "load_rig", "read_spec", "write_spec"]
