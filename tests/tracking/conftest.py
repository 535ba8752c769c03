from __future__ import annotations

import pytest

from tests.tracking.filmed import nodding_head


@pytest.fixture(scope="session")
def nodding():
    """See `nodding_head`; tests that follow points need OpenCV."""
    pytest.importorskip("cv2", reason="points are followed by OpenCV: pip install 'gafcore[track]'")
    return nodding_head()
