"""What phase 2 does beyond making resources: its own checks, the image, timed starts, and what is read back."""
