"""`make chaos`: break every part while it runs, and see whether viewers still get the truth."""
