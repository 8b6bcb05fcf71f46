"""What the migration amounts to: sealed evidence judged anew, targets, criteria, what is left to gain."""
