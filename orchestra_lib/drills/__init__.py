"""What is tried out for real before anybody depends on it: a restore to a moment, the other region, the cutover."""
