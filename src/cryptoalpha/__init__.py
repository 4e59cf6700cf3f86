"""cryptoalpha: multi-modal crypto trading AI that proves what it claims.

data → signals → decisions → risk → execution → monitoring → lifecycle, on core, store, nets and learn; `app` is the front door.
Importing the package loads nothing heavy; import the room you need.
"""

__version__ = "0.1.0"
