# from __future__ must come first in a script
from __future__ import annotations

cronium.output('ran')
