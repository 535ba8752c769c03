"""Made-up people for demos and tests: any rig, any seed, every picture and every vertex known."""

from gafcore.captures.synthetic.cameras import nersemble_arc
from gafcore.captures.synthetic.capture import SynthConfig, SyntheticCapture, from_motion, make
from gafcore.captures.synthetic.look import HAIR_STYLES

__all__ = ["HAIR_STYLES", "SynthConfig", "SyntheticCapture", "from_motion", "make", "nersemble_arc"]
