"""`python -m cryptoalpha` is the command `cryptoalpha`."""

import sys

from cryptoalpha.app.cli import main

sys.exit(main())
