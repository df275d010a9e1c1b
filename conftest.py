"""What every test process and its kernels have in common, however pytest is called."""

import os

from tools.kernel import settle

settle(os.environ)
