"""The DVC stages, a file each: parse identities, read the parameters, call the library, write the outs."""

import gc
import sys

if sys.argv[:1] == ["-m"]:  # a stage is being run: collecting garbage while it is imported costs a second, for none
    gc.disable()
