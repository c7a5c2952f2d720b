"""How crops are stored unless something else is asked for. Apart from `manifest.CropSettings`, because importing
pydantic and NumPy takes longer than `--help` may.
"""

STORE_PX = 256
QUALITY = 90
CONTEXT = 0.0
